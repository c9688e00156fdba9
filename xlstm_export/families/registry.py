"""Which family a source belongs to."""

from __future__ import annotations

import json

from xlstm_export.bundle.manifest import MANIFEST_FILE
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import CheckpointError, OptionError
from xlstm_export.families import block_stack, hf, xlstm_large
from xlstm_export.families.family import Family

FAMILIES: dict[str, Family] = {
    "hf": hf.FAMILY,
    "xlstm_large": xlstm_large.FAMILY,
    "block_stack": block_stack.FAMILY,
}

_EXPECTED = """expected one of
  a Hugging Face folder: config.json with model_type xlstm, and *.safetensors
  an xLSTMLarge folder: config.yaml, and model.safetensors or model_0.safetensors, ...
  a block-stack folder: config.yaml, and model.safetensors, model.pt or model.pth
  a weights file of one of these, with --config FILE"""


def find_family(source: Source, wanted: str = "auto") -> Family:
    """The family of ``source``; ``wanted`` other than "auto" decides without looking.

    Raises OptionError for a family that is none, CheckpointError when there is no such source or
    no family recognises it.
    """
    check_family(wanted)
    if not source.path.exists():
        raise CheckpointError(f"{source.path}: no such file or folder")
    if (source.path / MANIFEST_FILE).is_file():
        raise CheckpointError(f"{source.path}: is a bundle; give the checkpoint it was made from")
    if source.config is not None and not source.config.is_file():
        raise CheckpointError(f"{source.config}: no such configuration file")
    if wanted != "auto":
        return FAMILIES[wanted]
    for family in FAMILIES.values():
        if family.detect(source):
            return family
    raise CheckpointError(
        f"{source.path}: not recognised as an xLSTM checkpoint{_stated_type(source)}; {_EXPECTED}"
    )


def check_family(wanted: str) -> None:
    """Raise OptionError unless ``wanted`` is "auto" or a family."""
    if wanted != "auto" and wanted not in FAMILIES:
        raise OptionError("family", f"{wanted} is not one of auto, {', '.join(FAMILIES)}")


def _stated_type(source: Source) -> str:
    """What config.json says the model is, for the message; nothing where there is none."""
    try:
        values = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
        return f" (config.json: model_type {values['model_type']})"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
