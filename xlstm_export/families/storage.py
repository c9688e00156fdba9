"""Weight files as lazy tensors: safetensors without torch, torch files with ``weights_only``."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from xlstm_export.errors import BackendUnavailableError, CheckpointError
from xlstm_export.model.weights import Array, Weight

_SAFETENSORS_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")


def read_weight_files(paths: Iterable[Path]) -> dict[str, Weight]:
    """All tensors of ``paths`` (.safetensors, .pt, .pth, .ckpt, .bin) by name.

    Raises CheckpointError for a missing or damaged file, and for a name found twice.
    """
    tensors: dict[str, Weight] = {}
    for path in paths:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
        for name, weight in read(path).items():
            if name in tensors:
                raise CheckpointError(f"{path}: tensor {name} is in another file as well")
            tensors[name] = weight
    return tensors


def _read_safetensors(path: Path) -> dict[str, Weight]:
    try:
        with safe_open(path, framework="numpy"):  # the library validates the whole header
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); download or save it again"
        ) from error
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(header_size))
    header.pop("__metadata__", None)
    weights = {}
    for name, entry in header.items():
        dtype = _SAFETENSORS_TYPES.get(entry["dtype"], entry["dtype"])
        shape = tuple(entry["shape"])
        offset = 8 + header_size + entry["data_offsets"][0]
        weights[name] = Weight(shape, dtype, (name,), _file_reader(path, dtype, shape, offset))
    return weights


def _file_reader(path: Path, dtype: str, shape: tuple[int, ...], offset: int) -> Any:
    def load() -> Array:
        # fromfile, not mmap: pages of a finished tensor do not stay in memory
        flat = np.fromfile(path, _numpy_type(dtype), count=int(np.prod(shape)), offset=offset)
        return flat.reshape(shape)

    return load


def _numpy_type(dtype: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)


def _read_torch(path: Path) -> dict[str, Weight]:
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailableError(
            f"{path}: reading a torch file needs torch (pip install torch); "
            "or save the weights as safetensors"
        ) from error
    content = _load_torch(path)
    for key in _STATE_DICT_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds no state dict; save model.state_dict()")
    weights = {}
    for name, tensor in content.items():
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(
                f"{path}: entry {name} is a {type(tensor).__name__}, not a tensor; "
                "save model.state_dict()"
            )
        weights[str(name)] = _torch_weight(str(name), tensor)
    return weights


def _load_torch(path: Path) -> Any:
    import torch

    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # pre-1.6 format
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds Python objects beside tensors, or is no torch file; nothing of it was "
            "executed. Save model.state_dict(), best as safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: not a readable torch file ({reason}); download or save it again"
        ) from error


def _torch_weight(name: str, tensor: Any) -> Weight:
    import torch

    dtype = str(tensor.dtype).removeprefix("torch.")

    def load() -> Array:
        plain = tensor.detach().contiguous()
        if plain.dtype == torch.bfloat16:
            bits: Array = plain.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        else:
            bits = plain.numpy()
        return bits.copy()

    return Weight(tuple(tensor.shape), dtype, (name,), load)
