"""The configuration of the xLSTM-7B architecture, as far as two families share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import dacite

from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.families.extra_fields import TRAINING, unknown_fields
from xlstm_export.ops.schema import Attribute

_CONSTANTS = tuple(
    Attribute(name, "float", 0.0, "a constant of the model", least=0)
    for name in ("norm_eps", "eps", "gate_soft_cap", "output_logit_soft_cap")
)

_KERNELS = (
    "chunkwise_kernel", "sequence_kernel", "step_kernel", "forward_backend_name",
    "step_backend_name", "mlstm_backend",
)  # fmt: skip
"""Names of implementations, those of older configurations included."""


@dataclass(frozen=True, kw_only=True)
class LargeFields:
    """The configuration fields that both families read; None = not stated (caps: off)."""

    embedding_dim: int | None = None
    num_heads: int | None = None
    num_blocks: int | None = None
    vocab_size: int | None = None
    use_bias: bool = False
    norm_eps: float = 1e-6
    eps: float = 1e-6
    gate_soft_cap: float | None = 15.0
    output_logit_soft_cap: float | None = 30.0
    add_out_norm: bool = True
    chunkwise_kernel: str = ""
    sequence_kernel: str = ""
    step_kernel: str = ""


Fields = TypeVar("Fields", bound=LargeFields)


def config_file(source: Source, name: str) -> Path:
    """The configuration of ``source``: the one given, or ``name`` beside the weights."""
    folder = source.path if source.path.is_dir() else source.path.parent
    return source.config or folder / name


def parse_fields(
    kind: type[Fields], values: Mapping[str, Any], origin: str, strict: bool
) -> Fields:
    """``values``, which stand at ``origin``, as ``kind``; ``strict`` refuses unknown names.

    Raises UnsupportedModelError for an option with other maths, CheckpointError otherwise.
    """
    own = {field.name for field in dataclasses.fields(kind)}
    try:
        # yaml reads 1e-6 as text, hence the cast
        known = {name: value for name, value in values.items() if name not in TRAINING - own}
        fields = dacite.from_dict(kind, known, dacite.Config(strict=strict, cast=[float]))
    except dacite.UnexpectedDataError as error:
        raise CheckpointError(f"{origin}: {unknown_fields(sorted(error.keys))}") from error
    except (dacite.DaciteError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{origin}: {error}") from error
    _refuse_other_maths(fields, origin)
    for constant in _CONSTANTS:
        value = getattr(fields, constant.name)
        try:
            constant.check(0.0 if value is None else value)
        except ValueError as error:
            raise CheckpointError(f"{origin}: {error}") from error
    return fields


def refuse_qk_norm(values: Mapping[str, Any], origin: str) -> None:
    """Raise UnsupportedModelError where ``add_qk_norm`` is set: no released code computes it."""
    if values.get("add_qk_norm"):
        raise UnsupportedModelError(f"{origin}: add_qk_norm: true is not supported")


def _refuse_other_maths(fields: LargeFields, origin: str) -> None:
    for name in _KERNELS:
        kernel = str(getattr(fields, name, ""))
        if "siging" in kernel:
            raise UnsupportedModelError(
                f"{origin}: {name}: {kernel} is not supported: it has a sigmoid input gate, "
                "other maths than the exponential one"
            )


def refuse_contradiction(origin: str, name: str, stated: int | None, found: int) -> None:
    """Raise CheckpointError where the configuration states another size than the weights have."""
    if stated is not None and stated != found:
        raise CheckpointError(
            f"{origin}: {name} is {stated}, but the weights have {found}; "
            "does the configuration belong to these weights?"
        )
