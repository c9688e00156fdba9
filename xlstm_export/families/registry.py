"""Which family a source belongs to."""

from __future__ import annotations

import json
from typing import Protocol, cast

from xlstm_export.bundle.manifest import MANIFEST_FILE
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.errors import CheckpointError
from xlstm_export.families import block_stack, hf, xlstm_large
from xlstm_export.families.oracle import Oracle
from xlstm_export.model.storage import Storage


class Family(Protocol):
    """What every family module offers."""

    def detect(self, source: Source) -> bool:
        """True when ``source`` has this family's files."""
        ...

    def read(self, source: Source) -> Checkpoint:
        """Structure and lazy weights. Raises CheckpointError, UnsupportedModelError."""
        ...

    def oracle(self, checkpoint: Checkpoint, storage: Storage) -> Oracle:
        """The upstream module on numbers as stored. Raises BackendUnavailableError."""
        ...


FAMILIES: dict[str, Family] = {
    "hf": cast(Family, hf),
    "xlstm_large": cast(Family, xlstm_large),
    "block_stack": cast(Family, block_stack),
}

_EXPECTED = """expected one of
  a Hugging Face folder: config.json with model_type xlstm, and *.safetensors
  an xLSTMLarge folder: config.yaml, and model.safetensors or model_0.safetensors, ...
  a block-stack folder: config.yaml, and model.safetensors, model.pt or model.pth
  a weights file of one of these, with --config FILE"""


def find_family(source: Source, wanted: str = "auto") -> Family:
    """The family module of ``source``; ``wanted`` other than "auto" decides without looking.

    Raises CheckpointError when there is no such source or no family recognises it.
    """
    if not source.path.exists():
        raise CheckpointError(f"{source.path}: no such file or folder")
    if (source.path / MANIFEST_FILE).is_file():
        raise CheckpointError(f"{source.path}: is a bundle; give the checkpoint it was made from")
    if source.config is not None and not source.config.is_file():
        raise CheckpointError(f"{source.config}: no such configuration file")
    if wanted != "auto":
        if wanted not in FAMILIES:
            raise CheckpointError(f"--family {wanted}: choose auto, {', '.join(FAMILIES)}")
        return FAMILIES[wanted]
    for family in FAMILIES.values():
        if family.detect(source):
            return family
    raise CheckpointError(
        f"{source.path}: not recognised as an xLSTM checkpoint{_stated_type(source)}; {_EXPECTED}"
    )


def _stated_type(source: Source) -> str:
    """What config.json says the model is, for the message; nothing where there is none."""
    try:
        values = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
        return f" (config.json: model_type {values['model_type']})"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
