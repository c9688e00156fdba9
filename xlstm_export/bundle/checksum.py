"""Digests of files: what reports and engines say they are about."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from xlstm_export.bundle.manifest import (
    CONTINUE_FILE,
    DATA_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Manifest,
    own_digest,
)


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
    """Digest of the graph, the data, and the continuing graph of ``bundle``, one after the other.

    What is not there is left out.
    """
    files = (bundle / name for name in (MODEL_FILE, DATA_FILE, CONTINUE_FILE))
    return sha256(*(path for path in files if path.is_file()))


def manifest_sha256(bundle: Path) -> str:
    """Digest of the manifest's file."""
    return sha256(bundle / MANIFEST_FILE)


def is_as_written(bundle: Path, manifest: Manifest, digest: str) -> bool | None:
    """Whether graph, data and manifest are those that export wrote; None: it is not known.

    ``digest`` is the ``bundle_sha256`` of now, which reads the data to the end.
    """
    if not manifest.sha256:
        return None
    content = json.loads((bundle / MANIFEST_FILE).read_text(encoding="utf-8"))
    is_own = content.get("manifest_sha256", "") in ("", own_digest(content))
    return digest == manifest.sha256 and is_own
