"""The native CPU kernels on torch's tensors, through the plain C interface of ``xlstm_c.h``."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from xlstm_export.native import c_library_path, load_library
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES, OpSchema

_ALIGNMENT = 64
_NAMES = tuple(CATALOG)


class _Call(ctypes.Structure):
    """``xlstm_call``."""

    _fields_ = (
        ("op", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        ("sizes", ctypes.c_int64 * 5),
        ("lengths_size", ctypes.c_int64),
        ("inputs", ctypes.c_void_p * 9),
        ("outputs", ctypes.c_void_p * 5),
        ("attributes", ctypes.c_double * 8),
        ("packed", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("workspace_size", ctypes.c_size_t),
    )


class Kernels:
    """The library in this process, and the threads that its calls share, one call at a time."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.xlstm_status_message.restype = ctypes.c_char_p
        library.xlstm_pool_create.restype = ctypes.c_void_p
        self._lock = threading.Lock()
        self._pools: dict[int, ctypes.c_void_p | None] = {1: None}

    def run(
        self, schema: OpSchema, tensors: Sequence[Tensor], attributes: Mapping[str, Any],
        sizes: Mapping[str, int], tx: torch.dtype, outputs: Sequence[Tensor],
    ) -> None:  # fmt: skip
        """Compute ``outputs``, empty tensors of the right shapes, from checked operands.

        ``sizes`` by letter, in the order of their first appearance; ``tx`` the activations' type.
        Raises ValueError with what the library says of operands that it refuses.
        """
        given = [tensor.contiguous() for tensor in tensors]
        kind = str(
            next(x.dtype for s, x in zip(schema.inputs, given, strict=True) if s.type == "TX")
        )
        call = _Call(
            op=_NAMES.index(schema.name), dtype=TX_DTYPES.index(kind.removeprefix("torch."))
        )
        for place, values in (
            (call.sizes, list(sizes.values())),
            (call.inputs, [tensor.data_ptr() for tensor in given]),
            (call.outputs, [tensor.data_ptr() for tensor in outputs]),
            (call.attributes, list(attributes.values())),
        ):
            place[: len(values)] = values
        call.lengths_size = given[-1].numel()
        threads = torch.get_num_threads()
        with self._lock:
            pool = self._pool(threads)
            size = ctypes.c_size_t()
            where = ctypes.byref(call)
            self._expect(self._library.xlstm_cpu_workspace_size(where, threads, ctypes.byref(size)))
            room = torch.empty(size.value + _ALIGNMENT, dtype=torch.uint8)
            call.workspace = -(-room.data_ptr() // _ALIGNMENT) * _ALIGNMENT
            call.workspace_size = size.value
            self._expect(self._library.xlstm_cpu_run(where, pool))

    def _pool(self, threads: int) -> ctypes.c_void_p | None:
        if threads not in self._pools:
            self._pools[threads] = ctypes.c_void_p(self._library.xlstm_pool_create(threads))
        return self._pools[threads]

    def _expect(self, status: int) -> None:
        if status != 0:
            raise ValueError(self._library.xlstm_status_message(status).decode())


@cache
def native_kernels() -> Kernels | None:
    """The kernels, or None where no library is built.

    Raises BackendUnavailableError where the library does not fit this package.
    """
    path = c_library_path()
    return None if path is None else Kernels(load_library(path))
