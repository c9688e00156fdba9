"""safetensors files as lazy tensors: names and shapes by the library, numbers read in place."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from xlstm_export.errors import CheckpointError
from xlstm_export.model.storage import Storage
from xlstm_export.model.weights import Array, Weight

_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip

_PREFIX = 8
"""Bytes in front of the header, which hold its size."""


def read_safetensors(path: Path) -> dict[str, Weight]:
    """The tensors of ``path`` by name. Raises CheckpointError where its header is not right.

    The library checks sizes and places against the length of the file before any number is read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (entry.get_shape(), entry.get_dtype()) for name, entry in slices.items()}
        header = _header(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); download or save it again"
        ) from error
    start, entries = _PREFIX + len(header), json.loads(header)
    weights = {}
    for name, (sizes, kind) in found.items():
        shape, dtype = tuple(sizes), _TYPES.get(kind, kind)
        offset = start + entries[name]["data_offsets"][0]
        load = partial(_load, path, header, dtype, shape, offset)
        weights[name] = Weight(shape, dtype, (name,), load, str(path))
    return weights


def _header(path: Path) -> bytes:
    """What says where the numbers of each tensor begin, of which the library tells nothing.

    Its own reading maps the whole file: the pages of a tensor count twice while it is copied, and
    a file that is cut meanwhile ends the process.
    """
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(_PREFIX), "little"))


def _load(path: Path, header: bytes, dtype: str, shape: tuple[int, ...], offset: int) -> Array:
    count = math.prod(shape)
    try:
        if _header(path) != header:
            raise CheckpointError(f"{path}: changed while it was read")
        flat = np.fromfile(path, Storage(dtype).numpy, count=count, offset=offset)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    if flat.size != count:
        raise CheckpointError(f"{path}: became shorter while it was read")
    return flat.reshape(shape)
