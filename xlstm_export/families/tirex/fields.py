"""The hyper-parameters of a TiRex: in the checkpoint, or in a file beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dacite

from xlstm_export.checkpoint.source import Source
from xlstm_export.checkpoint.weight_files import StoredTensors
from xlstm_export.checkpoint.yaml_file import load_yaml
from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.families.extra_fields import unknown_fields

ENTRY = "hyper_parameters"
"""What Lightning calls them in a checkpoint."""

_FILES = tuple(
    f"{stem}.{suffix}"
    for stem in ("config", ENTRY, "hparams")
    for suffix in ("json", "yaml", "yml")
)


@dataclass(frozen=True)
class BlockFields:
    """Of every block; upstream ignores others."""

    embedding_dim: int
    num_heads: int
    num_blocks: int


@dataclass(frozen=True)
class ModelFields:
    """Sizes of the model, ``quantiles`` its levels."""

    input_patch_size: int
    output_patch_size: int
    quantiles: list[float]
    block_kwargs: BlockFields
    input_ff_dim: int


@dataclass(frozen=True)
class TiRexFields:
    """The arguments of upstream's TiRexZero; ``path`` is the file they are from."""

    model_config: ModelFields
    train_ctx_len: int
    path: Path


def read_fields(source: Source, files: tuple[Path, ...], stored: StoredTensors) -> TiRexFields:
    """The hyper-parameters of ``source``, whose weights are in ``files``.

    A file given, else those in the checkpoint, else a file beside the weights. Raises
    CheckpointError where there are none, one is missing or is none of a TiRex.
    """
    at, path, values = _find(source, files, stored)
    if isinstance(values.get(ENTRY), Mapping):
        values = values[ENTRY]
    try:
        own = dacite.from_dict(TiRexFields, {**values, "path": path}, dacite.Config(cast=[float]))
    except dacite.MissingValueError as error:
        raise CheckpointError(f"{at}: {error.field_path} is missing") from error
    except dacite.WrongTypeError as error:
        raise CheckpointError(
            f"{at}: {error.field_path} is {_shown(error.value)}, expected {_wanted(error)}"
        ) from error
    except (dacite.DaciteError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{at}: {error}") from error
    _refuse_unknown(values, at)
    _check(own, at)
    return own


def _find(
    source: Source, files: tuple[Path, ...], stored: StoredTensors
) -> tuple[str, Path, Mapping[str, Any]]:
    """Where they stand in words, the file, and they themselves."""
    if source.config is not None:
        return f"{source.config}", source.config, load_yaml(source.config)
    for at, values in stored.beside.items():
        if at.endswith(f": {ENTRY}"):
            return at, files[0], values
    folder = files[0].parent
    for name in _FILES:
        if (folder / name).is_file():
            return f"{folder / name}", folder / name, load_yaml(folder / name)
    raise CheckpointError(
        f"{files[0]}: the hyper-parameters of TiRex are missing: a model.ckpt has the entry "
        f"{ENTRY}; beside other weights put them into {_FILES[0]} (model_config, train_ctx_len), "
        "or name the file with --config"
    )


def _refuse_unknown(values: Mapping[str, Any], at: str) -> None:
    """Raise CheckpointError for what TiRexZero has no argument for."""
    config = values["model_config"]
    extra = [name for name in values if name not in TiRexFields.__dataclass_fields__]
    extra += [
        f"model_config.{name}" for name in config if name not in ModelFields.__dataclass_fields__
    ]
    if extra:
        raise CheckpointError(f"{at}: {unknown_fields(sorted(map(str, extra)))}")


def _check(fields: TiRexFields, at: str) -> None:
    config = fields.model_config
    sizes = {
        "train_ctx_len": fields.train_ctx_len,
        "model_config.input_patch_size": config.input_patch_size,
        "model_config.input_ff_dim": config.input_ff_dim,
        **{f"model_config.block_kwargs.{k}": v for k, v in vars(config.block_kwargs).items()},
    }
    for name, size in sizes.items():
        if size < 1:
            raise CheckpointError(f"{at}: {name} is {size}, expected at least 1")
    if fields.train_ctx_len % config.input_patch_size:
        raise CheckpointError(
            f"{at}: train_ctx_len is {fields.train_ctx_len}, which is no multiple of "
            f"model_config.input_patch_size {config.input_patch_size}"
        )
    if config.output_patch_size != config.input_patch_size:
        raise UnsupportedModelError(
            f"{at}: model_config.output_patch_size is {config.output_patch_size}, other than "
            f"model_config.input_patch_size {config.input_patch_size}: upstream has no such model"
        )
    levels = config.quantiles
    if not levels or sorted(set(levels)) != levels or levels[0] <= 0 or levels[-1] >= 1:
        raise CheckpointError(
            f"{at}: model_config.quantiles is {levels}, expected rising levels between 0 and 1"
        )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) < 40 else f"{text[:37]}..."


def _wanted(error: dacite.WrongTypeError) -> str:
    kind = error.field_type
    return "fields" if kind in (ModelFields, BlockFields) else getattr(kind, "__name__", str(kind))
