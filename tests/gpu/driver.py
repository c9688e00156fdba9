"""The CUDA driver through ctypes: device memory, streams and graphs, with nothing to install.

XLSTM_CUDA_DRIVER names another library with the driver's functions (tests/cuda/shim/driver.cpp:
how these tests are tried on a machine without a GPU).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from tests.cases import Array

DRIVER_VARIABLE = "XLSTM_CUDA_DRIVER"
CAPTURE_THREAD_LOCAL = 1
NAN_BYTE, CANARY = 0xFF, 0xA5
GUARD = 256
"""Canary bytes on either side of a buffer; the alignment of device memory is as much."""

_HANDLE = ctypes.c_void_p
_OUT = ctypes.POINTER(ctypes.c_void_p)
_INT_OUT = ctypes.POINTER(ctypes.c_int)
_SIGNATURES: dict[str, list[Any]] = {
    "cuInit": [ctypes.c_uint],
    "cuDeviceGetCount": [_INT_OUT],
    "cuDeviceGet": [_INT_OUT, ctypes.c_int],
    "cuDeviceGetName": [ctypes.c_char_p, ctypes.c_int, ctypes.c_int],
    "cuDevicePrimaryCtxRetain": [_OUT, ctypes.c_int],
    "cuCtxSetCurrent": [_HANDLE],
    "cuMemAlloc_v2": [_OUT, ctypes.c_size_t],
    "cuMemFree_v2": [_HANDLE],
    "cuMemcpyHtoDAsync_v2": [_HANDLE, _HANDLE, ctypes.c_size_t, _HANDLE],
    "cuMemcpyDtoHAsync_v2": [_HANDLE, _HANDLE, ctypes.c_size_t, _HANDLE],
    "cuStreamCreate": [_OUT, ctypes.c_uint],
    "cuStreamDestroy_v2": [_HANDLE],
    "cuStreamSynchronize": [_HANDLE],
    "cuStreamBeginCapture_v2": [_HANDLE, ctypes.c_int],
    "cuStreamEndCapture": [_HANDLE, _OUT],
    "cuGraphInstantiateWithFlags": [_OUT, _HANDLE, ctypes.c_ulonglong],
    "cuGraphLaunch": [_HANDLE, _HANDLE],
    "cuGraphGetNodes": [_HANDLE, _HANDLE, ctypes.POINTER(ctypes.c_size_t)],
    "cuGraphExecDestroy": [_HANDLE],
    "cuGraphDestroy": [_HANDLE],
}


class Driver:
    """The first GPU, its primary context made current where ``use`` is called."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(os.environ.get(DRIVER_VARIABLE) or "libcuda.so.1")
        for name, arguments in _SIGNATURES.items():
            function = getattr(self._lib, name)
            function.restype, function.argtypes = ctypes.c_int, arguments
        self.call("cuInit", 0)
        count, device, context = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGetCount", count)
        if count.value == 0:
            raise RuntimeError("the driver finds no GPU")
        self.call("cuDeviceGet", device, 0)
        self.call("cuDevicePrimaryCtxRetain", context, device)
        self._context, self._device = context, device
        self.use()

    def call(self, name: str, *arguments: Any) -> None:
        """One function of the driver. Raises RuntimeError where it fails."""
        status = getattr(self._lib, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} failed with CUDA error {status}")

    def use(self) -> None:
        """Make the context this thread's; every new thread needs it."""
        self.call("cuCtxSetCurrent", self._context)

    def name(self) -> str:
        """The GPU's name."""
        text = ctypes.create_string_buffer(128)
        self.call("cuDeviceGetName", text, len(text), self._device)
        return text.value.decode()


@cache
def driver() -> Driver:
    """The one driver of this process."""
    return Driver()


def why_no_gpu() -> str | None:
    """Why there is no GPU to run on; None where there is one."""
    try:
        driver()
    except (OSError, RuntimeError, AttributeError) as error:
        return f"no GPU: {error}"
    return None


class Stream:
    """A queue of work; only ``wait`` waits."""

    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()
        driver().call("cuStreamCreate", self.handle, 1)  # does not wait for the default stream

    def wait(self) -> None:
        """Until all that was queued is done."""
        driver().call("cuStreamSynchronize", self.handle)

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        """What the body queues becomes a graph instead."""
        graph = Graph()
        driver().call("cuStreamBeginCapture_v2", self.handle, CAPTURE_THREAD_LOCAL)
        try:
            yield graph
        finally:
            driver().call("cuStreamEndCapture", self.handle, graph.captured)
        graph.instantiate()

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            driver().call("cuStreamDestroy_v2", self.handle)


class Graph:
    """Captured work that can be queued again and again."""

    def __init__(self) -> None:
        self.captured, self._executable = ctypes.c_void_p(), ctypes.c_void_p()

    def instantiate(self) -> None:
        """Make it ready to launch."""
        driver().call("cuGraphInstantiateWithFlags", self._executable, self.captured, 0)

    def launch(self, stream: Stream) -> None:
        """Queue it."""
        driver().call("cuGraphLaunch", self._executable, stream.handle)

    def nodes(self) -> int:
        """Kernels, copies and the like in it."""
        count = ctypes.c_size_t()
        driver().call("cuGraphGetNodes", self.captured, None, count)
        return count.value

    def __del__(self) -> None:
        if getattr(self, "_executable", None):
            driver().call("cuGraphExecDestroy", self._executable)
        if getattr(self, "captured", None):
            driver().call("cuGraphDestroy", self.captured)


class DeviceBuffer:
    """Device memory between canaries, ``shift`` bytes past the device's alignment."""

    def __init__(self, nbytes: int, stream: Stream, shift: int = 0) -> None:
        self.nbytes, self._stream, self._first = nbytes, stream, GUARD + shift
        self._base = ctypes.c_void_p()
        self._total = self._first + nbytes + GUARD
        driver().call("cuMemAlloc_v2", self._base, self._total)
        self.address = int(self._base.value or 0) + self._first
        self.poison()

    def poison(self) -> None:
        """Canaries outside, NaN inside."""
        content = np.full(self._total, CANARY, np.uint8)
        content[self._first : self._first + self.nbytes] = NAN_BYTE
        driver().call(
            "cuMemcpyHtoDAsync_v2", self._base, content.ctypes.data, self._total,
            self._stream.handle,
        )  # fmt: skip
        self._stream.wait()

    def write(self, array: Array) -> None:
        """Fill it."""
        array = np.ascontiguousarray(array)
        assert array.nbytes == self.nbytes
        driver().call(
            "cuMemcpyHtoDAsync_v2", self.address, array.ctypes.data, self.nbytes,
            self._stream.handle,
        )  # fmt: skip
        self._stream.wait()

    def read(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """A copy, after a look at the canaries."""
        content = np.empty(self._total, np.uint8)
        driver().call(
            "cuMemcpyDtoHAsync_v2", content.ctypes.data, self._base, self._total,
            self._stream.handle,
        )  # fmt: skip
        self._stream.wait()
        end = self._first + self.nbytes
        assert (content[: self._first] == CANARY).all(), "written before the begin"
        assert (content[end:] == CANARY).all(), "written past the end"
        return content[self._first : end].copy().view(dtype).reshape(shape)

    def __del__(self) -> None:
        if getattr(self, "_base", None):
            driver().call("cuMemFree_v2", self._base)
