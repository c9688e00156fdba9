"""Torch files as lazy tensors: the archives of torch 1.6 and later without torch."""

from __future__ import annotations

import math
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from xlstm_export.checkpoint import torch_tensors
from xlstm_export.checkpoint.plain import plain_entries
from xlstm_export.checkpoint.torch_archive import ZIP_MAGIC, TorchArchive, not_readable
from xlstm_export.checkpoint.torch_tensors import OtherTensor, StoredTensor
from xlstm_export.checkpoint.unpickler import Skipped, Unpickler
from xlstm_export.errors import BackendUnavailableError, CheckpointError
from xlstm_export.model.weights import Array, Weight

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")

_SHOWN = 5

_TAR_MAGIC = slice(257, 262)
"""Where a tar archive, torch's first format, says ustar."""


@dataclass(frozen=True)
class _Content:
    """What a file holds, and how its tensors become lazy ones."""

    root: Any
    tensor_types: tuple[type, ...]
    weight: Callable[[str, Any], Weight]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileContent:
    """What was read of one file."""

    tensors: dict[str, Weight]
    beside: Mapping[str, Any]
    """The file's entries without tensors, as plain data (``checkpoint.plain``)."""
    notes: tuple[str, ...]


def read_torch(path: Path) -> FileContent:
    """The tensors of the state dict in ``path`` by name, what stands beside it, and what to tell.

    Nothing in the file is executed: objects are not built, what they hold is data. Raises
    CheckpointError for a damaged file and for one without a state dict, or with several;
    BackendUnavailableError where torch is missing for a file older than torch 1.6.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(ZIP_MAGIC):
        content = _read_archive(path)
    elif start[:1] == pickle.PROTO or start[_TAR_MAGIC] == b"ustar":
        content = _read_old(path)
    else:
        raise not_readable(path, "neither a zip archive nor a pickle")
    tensors = _state_dict(content.root, content.tensor_types, path)
    if isinstance(tensors, Skipped):
        raise CheckpointError(
            f"{path}: holds a Python object ({tensors.name}) and no state dict; nothing of it was "
            "executed. Save model.state_dict()"
        )
    if not isinstance(tensors, dict) or not tensors:
        raise CheckpointError(f"{path}: holds no state dict; save model.state_dict()")
    for name, tensor in tensors.items():
        _require_tensor(name, tensor, content.tensor_types, path)
    weights = {str(name): content.weight(str(name), tensor) for name, tensor in tensors.items()}
    beside = plain_entries(content.root, content.tensor_types)
    return FileContent(weights, beside, _notes(content.skipped, path))


def _require_tensor(name: Any, tensor: Any, tensor_types: tuple[type, ...], path: Path) -> None:
    if isinstance(tensor, tensor_types):
        return
    if isinstance(tensor, Skipped):
        raise CheckpointError(
            f"{path}: entry {name} is a Python object ({tensor.name}), not a tensor; nothing of it "
            "was executed. Save model.state_dict()"
        )
    raise CheckpointError(
        f"{path}: entry {name} is of type {type(tensor).__name__}, not a tensor; "
        "save model.state_dict()"
    )


def _notes(skipped: tuple[str, ...], path: Path) -> tuple[str, ...]:
    if not skipped:
        return ()
    more = f" and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
    names = ", ".join(skipped[:_SHOWN])
    return (
        f"{path.name}: Python objects beside the tensors were not built, nothing of them was "
        f"executed: {names}{more}",
    )


def _state_dict(content: Any, tensor_types: tuple[type, ...], path: Path) -> Any:
    """What ``content`` holds as the only state dict; itself where it holds none.

    Raises CheckpointError for several: averaged weights (EMA) beside the last ones, for instance.
    """
    for _ in _STATE_DICT_KEYS:  # one in another, but not without end
        if not isinstance(content, dict):
            break
        inner = {name: entry for name, entry in content.items() if isinstance(entry, dict)}
        found = [
            name
            for name, entry in inner.items()
            if name in _STATE_DICT_KEYS
            or (entry and all(isinstance(tensor, tensor_types) for tensor in entry.values()))
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


def _read_archive(path: Path) -> _Content:
    archive = TorchArchive(path)
    unpickler = Unpickler(torch_tensors.HANDLERS, torch_tensors.storage)
    try:
        root = unpickler.load(archive.pickled())
    except pickle.UnpicklingError as error:
        raise archive.damaged(error) from error

    def weight(name: str, tensor: StoredTensor | OtherTensor) -> Weight:
        return _archive_weight(archive, name, tensor)

    return _Content(root, torch_tensors.TENSORS, weight, tuple(unpickler.skipped))


def _archive_weight(archive: TorchArchive, name: str, tensor: StoredTensor | OtherTensor) -> Weight:
    if isinstance(tensor, OtherTensor):
        raise _not_dense(archive.path, name, tensor.kind)
    item = _item_size(tensor.dtype)
    there = archive.storage_bytes(tensor.storage.key) // item
    if tensor.offset + tensor.span > there:
        raise archive.damaged(f"tensor {name} reaches beyond its storage")
    if math.prod(tensor.shape) * item > archive.size:
        raise CheckpointError(
            f"{archive.path}: tensor {name} of shape {list(tensor.shape)} is larger than its file, "
            "which repeats it (expand); save it contiguous"
        )

    def load() -> Array:
        flat = archive.numbers(tensor.storage.key, tensor.dtype, tensor.offset, tensor.span)
        steps = [stride * item for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(flat, tensor.shape, steps)
        return view if view.flags.c_contiguous else view.copy()

    return Weight(tensor.shape, tensor.dtype, (name,), load, str(archive.path))


def _item_size(dtype: str) -> int:
    """Bytes of a number; 1 for a type that numpy lacks, of which no model is made."""
    try:
        return np.dtype(dtype).itemsize
    except TypeError:
        return 1


def _not_dense(path: Path, name: str, kind: str) -> CheckpointError:
    return CheckpointError(f"{path}: tensor {name} is stored as {kind}; save it dense")


def _read_old(path: Path) -> _Content:
    """A pickle with its storages behind it, or a tar archive: by torch itself."""
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailableError(
            f"{path}: reading a torch file older than torch 1.6 needs torch (pip install torch); "
            "or save the weights as safetensors"
        ) from error

    def weight(name: str, tensor: Any) -> Weight:
        return _torch_weight(path, name, tensor)

    return _Content(_load_old(path), (torch.Tensor,), weight)


def _load_old(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():  # the errors below say it better
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise CheckpointError(
            f"{path}: holds Python objects{what} beside tensors, or is no torch file; nothing of "
            "it was executed. Save model.state_dict(), best as safetensors; of a checkpoint that "
            'you trust: torch.save(torch.load(FILE, weights_only=False), "model.pt")'
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file fails in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise not_readable(path, reason) from error


def _torch_weight(path: Path, name: str, tensor: Any) -> Weight:
    import torch

    if tensor.layout is not torch.strided or tensor.is_meta:
        kind = "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
        raise _not_dense(path, name, kind)
    dtype = str(tensor.dtype).removeprefix("torch.")

    def load() -> Array:
        plain = tensor.detach().contiguous()
        if plain.dtype == torch.bfloat16:
            numbers: Array = plain.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        else:
            numbers = plain.numpy()
        return numbers.copy()

    return Weight(tuple(tensor.shape), dtype, (name,), load, str(path))
