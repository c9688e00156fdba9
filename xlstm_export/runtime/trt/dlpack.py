"""DLPack in both directions, by the structures of its C header (version 0: ``dltensor``)."""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from xlstm_export.errors import EngineError

_NAME = b"dltensor"
_KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}
_BFLOAT16 = 4
BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
_py = ctypes.pythonapi


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", _Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Tensor:
    """What a capsule describes; ``capsule`` keeps the memory alive. Strides in elements."""

    address: int
    device: tuple[int, int]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    capsule: Any = None


def read_capsule(capsule: Any) -> Tensor:
    """The tensor of an unconsumed capsule, which stays unconsumed: dropping it frees the memory.

    Raises EngineError for an element type that numpy and ml_dtypes lack.
    """
    pointer = _py.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = ctypes.cast(pointer(capsule, _NAME), ctypes.POINTER(_Managed)).contents.tensor
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    return Tensor(
        (tensor.data or 0) + tensor.byte_offset,
        (tensor.device_type, tensor.device_id),
        _dtype(tensor.code, tensor.bits, tensor.lanes),
        shape, strides, capsule,
    )  # fmt: skip


def host_copy(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor in host memory as a numpy array of its own."""
    size = tensor.dtype.itemsize
    steps = tensor.strides or contiguous_strides(tensor.shape)
    reach = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, steps, strict=True))
    memory = (ctypes.c_char * (reach * size)).from_address(tensor.address)
    flat = np.frombuffer(memoryview(memory), tensor.dtype)
    strides = [step * size for step in steps]
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides).copy()


def make_capsule(tensor: Tensor, owner: object) -> Any:
    """A capsule of ``tensor``, C-contiguous; ``owner`` lives until the consumer lets go."""
    rank = len(tensor.shape)
    sizes = (ctypes.c_int64 * rank)(*tensor.shape)
    steps = (ctypes.c_int64 * rank)(*contiguous_strides(tensor.shape))
    code = _BFLOAT16 if tensor.dtype == BFLOAT16 else _KINDS[tensor.dtype.kind]
    managed = _Managed(
        _Tensor(
            tensor.address, *tensor.device, rank, code, 8 * tensor.dtype.itemsize, 1, sizes, steps
        ),
        deleter=ctypes.cast(_release, ctypes.c_void_p).value,
    )
    _lent[ctypes.addressof(managed)] = (managed, owner)
    new = _py.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(ctypes.addressof(managed), _NAME, ctypes.cast(_drop, ctypes.c_void_p))


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a C-contiguous array, in elements."""
    return tuple(itertools.accumulate(shape[:0:-1], int.__mul__, initial=1))[::-1][: len(shape)]


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool:
    """Whether ``strides`` (elements; None: yes) are C-contiguous; those of size 1 do not matter."""
    packed = contiguous_strides(shape)
    sides = zip(shape, strides or packed, packed, strict=True)
    return 0 in shape or all(size == 1 or step == wanted for size, step, wanted in sides)


_lent: dict[int, tuple[_Managed, object]] = {}
"""What consumers hold, by address."""


def _on_release(managed: int) -> None:
    """The consumer is done."""
    _lent.pop(managed, None)


def _on_drop(capsule: int) -> None:
    """A capsule dies; one that was consumed has another name by then."""
    is_valid, pointer = _drop_functions
    if is_valid(capsule, _NAME):
        _on_release(pointer(capsule, _NAME))


# callable from C as long as the module lives
_release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_on_release)
_drop = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_on_drop)
_prototype = (ctypes.c_void_p, ctypes.c_char_p)
# prototypes of their own: a dying object may be passed as an address only
_drop_functions = (
    ctypes.PYFUNCTYPE(ctypes.c_int, *_prototype)(("PyCapsule_IsValid", _py)),
    ctypes.PYFUNCTYPE(ctypes.c_void_p, *_prototype)(("PyCapsule_GetPointer", _py)),
)


def _dtype(code: int, bits: int, lanes: int) -> np.dtype[Any]:
    if lanes == 1 and (code, bits) == (_BFLOAT16, 16):
        return BFLOAT16
    kind = next((kind for kind, number in _KINDS.items() if number == code), None)
    if lanes != 1 or kind is None or bits % 8:
        raise EngineError(f"an array given has an element type DLPack numbers {code}/{bits}")
    return np.dtype(f"{kind}{bits // 8}")
