"""Lending memory by DLPack, by the structures of its C header (version 0: ``dltensor``)."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import ml_dtypes
import numpy as np

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


def make_capsule(
    address: int,
    device: tuple[int, int],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    owner: object,
) -> Any:
    """A capsule of C-contiguous memory; ``owner`` lives until the consumer lets go."""
    rank = len(shape)
    sizes = (ctypes.c_int64 * rank)(*shape)
    steps = (ctypes.c_int64 * rank)(*contiguous_strides(shape))
    code = _BFLOAT16 if dtype == BFLOAT16 else _KINDS[dtype.kind]
    managed = _Managed(
        _Tensor(address, *device, rank, code, 8 * dtype.itemsize, 1, sizes, steps),
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
