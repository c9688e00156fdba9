"""Which family a source belongs to."""

from __future__ import annotations

from xlstm_export.bundle.manifest import MANIFEST_FILE
from xlstm_export.checkpoint.foreign import ForeignError
from xlstm_export.checkpoint.json_file import load_json
from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.checkpoint.source import Source
from xlstm_export.checkpoint.weight_files import read_weight_files
from xlstm_export.errors import BackendUnavailableError, CheckpointError, OptionError
from xlstm_export.families import block_stack, hf, xlstm_large
from xlstm_export.families.family import Family

FAMILIES: dict[str, Family] = {
    "hf": hf.FAMILY,
    "xlstm_large": xlstm_large.FAMILY,
    "block_stack": block_stack.FAMILY,
}

_EXPECTED = """expected one of
  a Hugging Face folder: config.json with model_type xlstm, and its weights
  an xLSTMLarge folder: config.yaml, and model.safetensors or model_0.safetensors, ...
  a block-stack folder: config.yaml, and model.safetensors, model.pt or a training checkpoint
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
    stated = _stated_type(source)
    if not stated:
        _refuse_foreign(source)
    raise CheckpointError(
        f"{source.path}: not recognised as an xLSTM checkpoint{stated}; {_EXPECTED}"
    )


def check_family(wanted: str) -> None:
    """Raise OptionError unless ``wanted`` is "auto" or a family."""
    if wanted != "auto" and wanted not in FAMILIES:
        raise OptionError("family", f"{wanted} is not one of auto, {', '.join(FAMILIES)}")


def _refuse_foreign(source: Source) -> None:
    """Raise ForeignError where the files of ``source``, or its tensors, say what it is."""
    try:
        read_weight_files(find_weight_files(source.path), source.prefix)
    except ForeignError:
        raise
    except (CheckpointError, BackendUnavailableError):
        return  # no reason why no family has recognised it


def _stated_type(source: Source) -> str:
    """What config.json says the model is, for the message; nothing where there is none."""
    try:
        stated = load_json(source.path / "config.json").get("model_type")
    except CheckpointError:
        return ""
    return f" (config.json: model_type {stated})" if isinstance(stated, str) else ""
