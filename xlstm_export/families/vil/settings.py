"""What the tensors of a Vision-LSTM do not say: the size of the images, and the patches' stride.

A file of upstream's constructor arguments (``--config``) says it, else the published name does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlstm_export.checkpoint.source import Source
from xlstm_export.checkpoint.yaml_file import load_yaml
from xlstm_export.errors import CheckpointError

_SEEN = frozenset({
    "alternation", "conv_kernel_size", "conv_kind", "depth", "dim", "drop_path_decay",
    "drop_path_rate", "init_weights", "legacy_norm", "mode", "norm_bias", "output_shape",
    "patch_size", "pooling", "proj_bias",
})  # fmt: skip
"""Arguments that the tensors show, or that matter in training alone."""

_STRIDE_8 = "stride8"
"""In the names of the published files whose patches overlap."""


@dataclass(frozen=True)
class Settings:
    """Each (height, width); None where nothing says it."""

    resolution: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None


def read_settings(source: Source, files: Iterable[Path]) -> Settings:
    """What ``source`` says beside the tensors of its weight ``files``, by their names too.

    Raises CheckpointError that names the field.
    """
    names = (path.name for path in (source.path, *files))
    by_name = (8, 8) if any(_STRIDE_8 in name for name in names) else None
    if source.config is None:
        return Settings(stride=by_name)
    fields = load_yaml(source.config)
    unknown = sorted(set(fields) - _SEEN - {"input_shape", "stride"})
    if unknown:
        raise CheckpointError(
            f"{source.config}: unknown fields: {', '.join(unknown)}; read are input_shape "
            "[channels, height, width] and stride"
        )
    shape, stride = fields.get("input_shape"), fields.get("stride")
    resolution = None
    if shape is not None:
        whole = _sizes(source, "input_shape", shape, 3)
        resolution = (whole[1], whole[2])
    if stride is None:
        return Settings(resolution, by_name)
    pair = [stride] * 2 if type(stride) is int else stride
    sizes = _sizes(source, "stride", pair, 2)
    return Settings(resolution, (sizes[0], sizes[1]))


def _sizes(source: Source, field: str, value: Any, count: int) -> list[int]:
    is_sizes = isinstance(value, list) and len(value) == count
    if not is_sizes or not all(type(size) is int and size > 0 for size in value):
        raise CheckpointError(f"{source.config}: {field} {value} is not {count} positive numbers")
    return list(value)
