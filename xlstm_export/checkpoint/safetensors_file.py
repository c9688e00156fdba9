"""safetensors files as lazy tensors, by the library's own reading of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import ml_dtypes  # noqa: F401  gives numpy the name bfloat16, which the library asks it for
from safetensors import SafetensorError, safe_open

from xlstm_export.errors import CheckpointError
from xlstm_export.model.weights import Array, Weight

_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, Weight]:
    """The tensors of ``path`` by name. Raises CheckpointError where its header is not right.

    The library checks sizes and places against the length of the file before it reads any.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (entry.get_shape(), entry.get_dtype()) for name, entry in slices.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); download or save it again"
        ) from error
    return {
        name: Weight(
            tuple(shape), _TYPES.get(dtype, dtype), (name,), partial(_load, path, name), str(path)
        )
        for name, (shape, dtype) in found.items()
    }


def _load(path: Path, name: str) -> Array:
    try:
        # opened for each tensor: the pages of a finished one go with the mapping they are in
        with safe_open(path, framework="numpy") as file:
            numbers: Array = file.get_tensor(name)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: changed while it was read ({error})") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    return numbers
