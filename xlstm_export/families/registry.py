"""Which family a source belongs to."""

from __future__ import annotations

from pathlib import Path

from xlstm_export.bundle.manifest import MANIFEST_FILE
from xlstm_export.checkpoint.foreign import ForeignError
from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.checkpoint.source import Source
from xlstm_export.checkpoint.weight_files import read_weight_files
from xlstm_export.checkpoint.yaml_file import load_yaml
from xlstm_export.errors import BackendUnavailableError, CheckpointError, OptionError
from xlstm_export.families import block_stack, hf, tirex, tirex2, vil, xlstm_large
from xlstm_export.families.family import Family
from xlstm_export.families.sections import missing_blocks

FAMILIES: dict[str, Family] = {
    "hf": hf.FAMILY,
    "xlstm_large": xlstm_large.FAMILY,
    "vil": vil.FAMILY,  # before block_stack, which has blocks of the same names
    "block_stack": block_stack.FAMILY,
    "tirex2": tirex2.FAMILY,
    "tirex": tirex.FAMILY,
}

_LARGE = "num_heads, embedding_dim, num_blocks, vocab_size"

_EXPECTED = """expected one of
  a Hugging Face folder: config.json with model_type xlstm, and its weights
  an xLSTMLarge folder: config.yaml, and model.safetensors or model_0.safetensors, ...
  a block-stack folder: config.yaml, and model.safetensors, model.pt or a training checkpoint
  a TiRex-2 folder: config.json with a stack_config, and model.safetensors
  a weights file of one of these, with --config FILE or the configuration inside
  a Vision-LSTM (ViL): a weights file alone
  a TiRex: model.ckpt, or its weights with their hyper-parameters in config.json"""


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
    _refuse_foreign(source)
    raise CheckpointError(
        f"{source.path}: not recognised as an xLSTM checkpoint ({_what_is_there(source)}); "
        f"{_EXPECTED}"
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


def _what_is_there(source: Source) -> str:
    """What the configurations of ``source`` say, for the message: why they are none of ours."""
    folder = source.path if source.path.is_dir() else source.path.parent
    names = ("config.json", "config.yaml", "config.yml")
    files = [source.config] if source.config else [folder / name for name in names]
    words = [f"{path.name} {_what_it_says(path)}" for path in files if path.is_file()]
    return "; ".join(words) or f"there is no {' or '.join(names[:2])}"


def _what_it_says(config: Path) -> str:
    try:
        values = load_yaml(config)  # JSON is YAML too
    except CheckpointError:
        return "is not readable"
    if config.suffix == ".json":
        says = values.get("model_type")
        return f"says model_type {says}" if says else "says no model_type"
    return f"{missing_blocks(values)}, and none of the fields of an xLSTMLarge ({_LARGE})"
