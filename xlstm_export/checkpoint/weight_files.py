"""Weight files as lazy tensors: safetensors without torch, torch files with ``weights_only``."""

from __future__ import annotations

import json
import math
import pickle
import re
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, CheckpointError
from xlstm_export.model.weights import Array, Weight

_SAFETENSORS_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip

_TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".th")
WEIGHT_SUFFIXES = (".safetensors", *_TORCH_SUFFIXES)

_WRAPPERS = ("module.", "model.", "net.")
"""Before every name in what data parallelism and Lightning modules save; no model has them."""
_COMPILED = "_orig_mod."
"""Where a module went through torch.compile: the whole model, or a part of it."""

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")


def read_weight_files(paths: Iterable[Path], prefix: str = "") -> dict[str, Weight]:
    """The tensors of ``paths`` (.safetensors, .pt, .pth, .ckpt, .bin, .th) by name.

    Names are those of the bare model: what torch.compile, data parallelism and Lightning add is
    taken off, then ``prefix``, and what does not start with that is left out. Raises
    CheckpointError for a missing or damaged file, for a name found twice, and where nothing starts
    with ``prefix``. Whether numbers are finite is seen when they are stored (``Storage.encode``).
    """
    files = list(paths)
    tensors = _all_tensors(files)
    if not prefix:
        return tensors
    start = _start(prefix)
    inner = {name.removeprefix(start): w for name, w in tensors.items() if name.startswith(start)}
    if not inner:
        there = ", ".join(sorted({name.partition(".")[0] for name in tensors})[:5])
        raise CheckpointError(
            f"{files[0]}: no tensor's name starts with {start!r}; they start with {there}"
        )
    return {name: replace(weight, sources=(name,)) for name, weight in _unwrapped(inner).items()}


def names_left_out(paths: Iterable[Path], prefix: str) -> list[str]:
    """Names of the tensors in ``paths`` that ``read_weight_files`` leaves out for ``prefix``."""
    return sorted(name for name in _all_tensors(paths) if not name.startswith(_start(prefix)))


def _start(prefix: str) -> str:
    """``prefix`` up to the dot, which may be given or not."""
    return prefix.rstrip(".") + "."


def _all_tensors(paths: Iterable[Path]) -> dict[str, Weight]:
    tensors: dict[str, Weight] = {}
    for path in paths:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        _require_readable(path)
        for name, weight in _reader(path)(path).items():
            if name in tensors:
                raise CheckpointError(f"{path}: tensor {name} is in another file as well")
            tensors[name] = weight
    return _unwrapped(tensors)


def _unwrapped(tensors: dict[str, Weight]) -> dict[str, Weight]:
    bare = {name.replace(_COMPILED, ""): weight for name, weight in tensors.items()}
    while wrapper := _shared_wrapper(bare):
        bare = {name.removeprefix(wrapper): weight for name, weight in bare.items()}
    if len(bare) < len(tensors):
        return tensors
    return {name: replace(weight, sources=(name,)) for name, weight in bare.items()}


def _shared_wrapper(names: Collection[str]) -> str | None:
    """The wrapper that every one of ``names`` starts with."""
    shared = (w for w in _WRAPPERS if names and all(name.startswith(w) for name in names))
    return next(shared, None)


def _require_readable(path: Path) -> None:
    """Raise CheckpointError with the system's reason: the libraries call any failure damage."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error


def _reader(path: Path) -> Callable[[Path], dict[str, Weight]]:
    if path.suffix == ".safetensors":
        return _read_safetensors
    if path.suffix in _TORCH_SUFFIXES:
        return _read_torch
    known = ", ".join(WEIGHT_SUFFIXES)
    raise CheckpointError(f"{path}: not a weights file by its name; known endings: {known}")


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
        load = _file_reader(path, name, dtype, shape, offset)
        weights[name] = Weight(shape, dtype, (name,), load, str(path))
    return weights


def _file_reader(
    path: Path, name: str, dtype: str, shape: tuple[int, ...], offset: int
) -> Callable[[], Array]:
    count = math.prod(shape)

    def load() -> Array:
        # fromfile, not mmap: pages of a finished tensor do not stay in memory
        try:
            flat = np.fromfile(path, _numpy_type(dtype), count=count, offset=offset)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
        if flat.size != count:
            raise CheckpointError(f"{path}: became shorter while it was read")
        return flat.reshape(shape)

    return load


def _numpy_type(dtype: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)


def _read_torch(path: Path) -> dict[str, Weight]:
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailableError(
            f"{path}: reading a torch file needs torch: {install('torch')}, "
            "or save the weights as safetensors"
        ) from error
    content = _state_dict(_load_torch(path), path)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds no state dict; save model.state_dict()")
    weights = {}
    for name, tensor in content.items():
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(
                f"{path}: entry {name} is of type {type(tensor).__name__}, not a tensor; "
                "save model.state_dict()"
            )
        if tensor.layout is not torch.strided or tensor.is_meta:
            kind = "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
            raise CheckpointError(f"{path}: tensor {name} is stored as {kind}; save it dense")
        weights[str(name)] = _torch_weight(path, str(name), tensor)
    return weights


def _state_dict(content: Any, path: Path) -> Any:
    """What ``content`` holds as the only state dict; itself where it holds none.

    Raises CheckpointError for several: averaged weights (EMA) beside the last ones, for instance.
    """
    import torch

    for _ in _STATE_DICT_KEYS:  # one in another, but not without end
        if not isinstance(content, dict):
            break
        inner = {name: entry for name, entry in content.items() if isinstance(entry, dict)}
        found = [
            name
            for name, entry in inner.items()
            if name in _STATE_DICT_KEYS
            or (entry and all(isinstance(tensor, torch.Tensor) for tensor in entry.values()))
        ]
        if len(found) > 1:
            names = ", ".join(map(str, found))
            raise CheckpointError(
                f"{path}: holds several state dicts ({names}); save the one to be exported alone: "
                f'torch.save(torch.load(FILE)["{found[-1]}"], "model.pt")'
            )
        if not found:
            break
        content = content[found[0]]
    return content


def _load_torch(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():  # the errors below say it better
            warnings.simplefilter("ignore")
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)  # pre-1.6 format
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise CheckpointError(
            f"{path}: holds Python objects{what} beside tensors, or is no torch file; nothing of "
            "it was executed. Save model.state_dict(), best as safetensors; of a Lightning "
            "checkpoint that you trust: "
            'torch.save(torch.load(FILE, weights_only=False)["state_dict"], "model.pt")'
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive or pickle fails in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "TorchScript" in reason:
            raise CheckpointError(
                f"{path}: is a TorchScript program; save model.state_dict()"
            ) from error
        raise CheckpointError(
            f"{path}: not a readable torch file ({reason}); download or save it again"
        ) from error


def _torch_weight(path: Path, name: str, tensor: Any) -> Weight:
    import torch

    dtype = str(tensor.dtype).removeprefix("torch.")

    def load() -> Array:
        plain = tensor.detach().contiguous()
        if plain.dtype == torch.bfloat16:
            numbers: Array = plain.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        else:
            numbers = plain.numpy()
        return numbers.copy()

    return Weight(tuple(tensor.shape), dtype, (name,), load, str(path))
