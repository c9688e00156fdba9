"""safetensors files as lazy tensors: names and shapes by the library, numbers read in place."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from xlstm_export.errors import CheckpointError
from xlstm_export.model.storage import Storage
from xlstm_export.model.weights import Array, Weight

_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, Weight]:
    """The tensors of ``path`` by name. Raises CheckpointError where its header is not right.

    The library checks sizes and places against the length of the file before any number is read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (entry.get_shape(), entry.get_dtype()) for name, entry in slices.items()}
        places, seen = _places(path), _version(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); download or save it again"
        ) from error
    weights = {}
    for name, (sizes, kind) in found.items():
        shape, dtype = tuple(sizes), _TYPES.get(kind, kind)
        load = partial(_load, path, seen, dtype, shape, places[name])
        weights[name] = Weight(shape, dtype, (name,), load, str(path))
    return weights


def _places(path: Path) -> dict[str, int]:
    """Where the numbers of each tensor begin, of which the library tells nothing.

    Its own reading maps the whole file: the pages of a tensor count twice while it is copied, and
    a file that is cut meanwhile ends the process.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return {name: 8 + size + entry["data_offsets"][0] for name, entry in header.items()}


def _version(path: Path) -> tuple[int, int]:
    """What changes with the file: its size and its header."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return path.stat().st_size, hash(file.read(size))


def _load(
    path: Path, seen: tuple[int, int], dtype: str, shape: tuple[int, ...], offset: int
) -> Array:
    count = math.prod(shape)
    try:
        if _version(path) != seen:
            raise CheckpointError(f"{path}: changed while it was read")
        flat = np.fromfile(path, Storage(dtype).numpy, count=count, offset=offset)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    if flat.size != count:
        raise CheckpointError(f"{path}: became shorter while it was read")
    return flat.reshape(shape)
