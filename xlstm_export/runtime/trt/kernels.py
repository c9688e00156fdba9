"""Our CUDA kernels that an engine's session calls itself, through ``xlstm_cuda_c.h``."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

from xlstm_export.errors import BackendUnavailableError, EngineError
from xlstm_export.native import cuda_library_path, load_library
from xlstm_export.runtime.session import Array


class CudaKernels:
    """The library in this process."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._likeliest = library.xlstm_cuda_likeliest
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        self._likeliest.argtypes = [pointer, pointer, count, count, pointer, pointer, pointer]
        self._error_name = library.xlstm_cuda_error_name
        self._error_name.restype = ctypes.c_char_p

    def likeliest(
        self, logits: int, starts: Array, vocabulary: int, tokens: int, values: int, stream: int
    ) -> None:
        """Queue each row's likeliest token: to ``tokens`` int64 [B], its logit to ``values`` [B].

        A row is the ``vocabulary`` float32 that begin ``starts`` [B] elements after ``logits``. All
        addresses are the device's; ``starts`` is on the host. Raises EngineError.
        """
        starts = np.ascontiguousarray(starts, np.int64)
        status = self._likeliest(
            logits, starts.ctypes.data, len(starts), vocabulary, tokens, values, stream or None
        )
        if status != 0:
            cause = (self._error_name() or b"").decode()
            raise EngineError(f"choosing the likeliest token failed: status {status}, {cause}")


@cache
def cuda_kernels() -> CudaKernels | None:
    """The kernels, or None where there is no library: engines need none but their plugins.

    Raises BackendUnavailableError where the library does not fit this package.
    """
    try:
        path = cuda_library_path()
    except BackendUnavailableError:  # XLSTM_LIBRARY_DIR names a folder with the plugins alone
        return None
    return None if path is None else CudaKernels(load_library(path))
