"""Digests of files: what reports and engines say they are about."""

from __future__ import annotations

import hashlib
from pathlib import Path

from xlstm_export.model.manifest import DATA_FILE, MODEL_FILE


def sha256(*paths: Path) -> str:
    """Digest of the contents of ``paths``, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def data_bytes(bundle: Path) -> int:
    """Size of the data of ``bundle``; 0 where the graph holds all."""
    path = bundle / DATA_FILE
    return path.stat().st_size if path.is_file() else 0


def bundle_sha256(bundle: Path) -> str:
    """Digest of the graph and the data of ``bundle``, one after the other."""
    files = (bundle / MODEL_FILE, bundle / DATA_FILE)
    return sha256(*(path for path in files if path.is_file()))
