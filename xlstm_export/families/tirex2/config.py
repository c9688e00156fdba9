"""The configuration of a TiRex-2: the arguments of upstream's ``TiRex2`` (tirex-2 0.4.0)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import dacite

from xlstm_export.checkpoint.json_file import load_json
from xlstm_export.checkpoint.source import Source
from xlstm_export.checkpoint.yaml_file import load_yaml
from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.families.extra_fields import TRAINING, unknown_fields
from xlstm_export.model.layers.feed_forward import Activation

CONFIG_FILES = ("config.json", "model-config.yaml")
"""Today's and the one of before; the first that is there counts."""

_ACTIVATIONS: dict[str, Activation] = {
    "GELU": "gelu", "ReLU": "relu", "SELU": "selu", "Sigmoid": "sigmoid", "SiLU": "swish",
}  # fmt: skip
_TORCH_MODULES = ("", "torch.nn.", "torch.nn.modules.activation.")

_SAME_LEVEL = 1e-6
"""Levels of quantiles that differ by less are one, to upstream as well."""

_ELSEWHERE = {"device", "matmul_precision", "postprocessor_cfg", "model_type", "architectures"}
"""Where a model runs, what upstream drops, and what the Hub adds: nothing is computed by it."""


@dataclass(frozen=True)
class TimeMixer:
    """The recurrence of a block."""

    model_type: Literal["bi-slstm", "bi-mlstm"]
    embedding_dim: int
    num_heads: int = 4
    num_slstm_heads: int | None = None

    @property
    def heads(self) -> int:
        """Those of its cell."""
        if self.model_type == "bi-slstm" and self.num_slstm_heads is not None:
            return self.num_slstm_heads
        return self.num_heads


@dataclass(frozen=True)
class VariateMixer:
    """The attention of a block."""

    embedding_dim: int
    num_heads: int = 4


@dataclass(frozen=True)
class Template:
    """A block."""

    time_mixer: TimeMixer
    variate_mixer: VariateMixer
    dropout: float | None
    eps: float
    """Read by nothing: the norms of a block have 1e-6."""


@dataclass(frozen=True)
class Stack:
    """Blocks by name, and their names in order."""

    templates: dict[str, Template]
    recipe: list[str]


@dataclass(frozen=True)
class Tokenizer:
    """Patches."""

    output_patch_size: int
    input_patch_size: int
    input_patch_stride: int


@dataclass(frozen=True)
class Scaler:
    """Standardisation."""

    eps: float = 1e-8
    use_arcsinh: bool = False
    binaryaware: bool = False


@dataclass(frozen=True)
class OutNorm:
    """The norm behind the blocks. Without ``use_rmsnorm`` it subtracts no mean either."""

    eps: float = 1e-7
    use_rmsnorm: bool = False


@dataclass(frozen=True)
class Config:
    """Upstream's arguments by their names, but for where it runs."""

    stack_config: Stack
    num_blocks: int
    embedding_dim: int
    input_patch_size: int
    output_patch_size: int
    quantiles: list[float]
    tokenizer_cfg: Tokenizer
    scaler_cfg: Scaler
    h_expand: float
    context_len: int
    future_len: int
    input_ff_dim: int
    act_func: str
    dropout: float
    use_qk_norm: bool = True
    stack_out_norm_config: OutNorm | None = None
    tta_sign_flip: bool = False
    tta_diff: bool = True
    path: Path = field(default=Path(), compare=False)
    """The file it is from."""

    def opposites(self) -> tuple[int, ...]:
        """For every quantile q, the number of 1 - q. Raises CheckpointError where there is none."""
        found = []
        for level in self.quantiles:
            near = [abs(other + level - 1) for other in self.quantiles]
            if min(near) > _SAME_LEVEL:
                raise self.error(
                    f"tta_sign_flip: true, but quantiles has {level:g} without {1 - level:g}"
                )
            found.append(near.index(min(near)))
        return tuple(found)

    @property
    def activation(self) -> Activation:
        """``act_func`` in our words."""
        return _ACTIVATIONS[self.act_func.rpartition(".")[2]]

    @property
    def blocks(self) -> list[Template]:
        """In order."""
        return [self.stack_config.templates[name] for name in self.stack_config.recipe]

    def error(self, what: str) -> CheckpointError:
        """The error that its file is wrong in ``what``."""
        return CheckpointError(f"{self.path}: {what}")

    def agree(self, name: str, stated: int, key: str, found: int) -> None:
        """Raise CheckpointError unless ``name`` of the configuration says what ``key`` shows."""
        if stated != found:
            raise self.error(
                f"{name} is {stated}, but tensor {key} says {found}; does the configuration "
                "belong to these weights?"
            )


def config_file(source: Source) -> Path:
    """The configuration of ``source``: the one given, or one beside the weights."""
    folder = source.path if source.path.is_dir() else source.path.parent
    there = (folder / name for name in CONFIG_FILES if (folder / name).is_file())
    return source.config or next(there, folder / CONFIG_FILES[0])


def load_fields(path: Path) -> dict[str, Any]:
    """What ``path`` says, be it JSON or YAML."""
    return load_json(path) if path.suffix == ".json" else load_yaml(path)


def read_config(path: Path) -> Config:
    """The configuration in ``path``.

    Raises CheckpointError where it is missing, incomplete or contradicts itself,
    UnsupportedModelError for what is not lowered; both name the field.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such configuration; a TiRex-2 folder has config.json, or of before "
            "model-config.yaml"
        )
    values = _computed_with(load_fields(path))
    unknown = values.keys() - {f.name for f in dataclasses.fields(Config)}
    if unknown:
        raise CheckpointError(f"{path}: {unknown_fields(sorted(unknown))}")
    try:
        # YAML reads 1e-6 as text, hence the cast
        config = dacite.from_dict(Config, {**values, "path": path}, dacite.Config(cast=[float]))
    except dacite.MissingValueError as error:
        raise CheckpointError(
            f"{path}: field {error.field_path} is missing; a TiRex-2 cannot be read without it"
        ) from error
    except (dacite.DaciteError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    _check(config)
    return config


def _computed_with(values: dict[str, Any]) -> dict[str, Any]:
    """The fields by which something is computed."""
    return {
        name: value
        for name, value in values.items()
        if name not in _ELSEWHERE | TRAINING - {"dropout"}
    }


def _check(config: Config) -> None:
    """Raise for sizes that contradict each other, and for what is not lowered."""
    stack, tokenizer, size = config.stack_config, config.tokenizer_cfg, config.input_patch_size
    positive = ("num_blocks", "embedding_dim", "input_patch_size", "context_len", "future_len")
    for name in positive:
        if getattr(config, name) < 1:
            raise config.error(f"{name} is {getattr(config, name)}, which is not positive")
    if len(stack.recipe) != config.num_blocks:
        raise config.error(
            f"num_blocks is {config.num_blocks}, but stack_config.recipe has {len(stack.recipe)}"
        )
    for name in stack.recipe:
        if name not in stack.templates:
            raise config.error(
                f"stack_config.recipe has {name!r}, which is not one of stack_config.templates "
                f"({', '.join(stack.templates)})"
            )
    sizes = {
        "output_patch_size": config.output_patch_size,
        "tokenizer_cfg.input_patch_size": tokenizer.input_patch_size,
        "tokenizer_cfg.output_patch_size": tokenizer.output_patch_size,
    }
    for name, value in sizes.items():
        if value != size:
            raise config.error(f"input_patch_size is {size}, but {name} is {value}")
    if config.future_len % size:
        raise config.error(
            f"future_len is {config.future_len}, which is not whole patches of {size}"
        )
    for name, template in stack.templates.items():
        for part in ("time_mixer", "variate_mixer"):
            stated = getattr(template, part).embedding_dim
            if stated != config.embedding_dim:
                raise config.error(
                    f"embedding_dim is {config.embedding_dim}, but stack_config.templates.{name}."
                    f"{part}.embedding_dim is {stated}"
                )
    if not config.quantiles:
        raise config.error("quantiles is empty")
    _refuse_other_maths(config)


def _refuse_other_maths(config: Config) -> None:
    stride = config.tokenizer_cfg.input_patch_stride
    if stride != config.input_patch_size:
        raise UnsupportedModelError(
            f"{config.path}: tokenizer_cfg.input_patch_stride: {stride} is not supported "
            f"(supported: patches that do not overlap, {config.input_patch_size})"
        )
    module, _, name = config.act_func.rpartition(".")
    if (f"{module}." if module else "") not in _TORCH_MODULES or name not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"{config.path}: act_func: {config.act_func} is not supported (supported: "
            f"{', '.join(_ACTIVATIONS)} of torch.nn)"
        )
