"""What timing needs of the CUDA driver beyond tests/gpu/driver.py: events, copies, a cold cache."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from tests.gpu.driver import DeviceBuffer, Stream, driver

Queue = Callable[[], object]
"""Queues the work of one call on the stream all contenders share."""

LEAST_FLUSH = 32 << 20
"""Bytes written to empty the cache of a GPU that does not say how large it is."""
_ATTRIBUTES = {
    "multiprocessors": 16,
    "l2_cache_bytes": 38,
    "clock_khz": 13,
    "memory_clock_khz": 36,
    "memory_bus_bits": 37,
    "compute_major": 75,
    "compute_minor": 76,
}
_SMI_FIELDS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw", "temperature.gpu")


class Timer:
    """GPU time of calls on ``stream``, each after the cache was filled with other data."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._start, self._stop = ctypes.c_void_p(), ctypes.c_void_p()
        for event in (self._start, self._stop):
            driver().call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        self._other = DeviceBuffer(2 * attribute("l2_cache_bytes") or LEAST_FLUSH, stream)

    def flush(self) -> None:
        """Queue a write of twice the L2 cache."""
        driver().call(
            "cuMemsetD8Async", ctypes.c_void_p(self._other.address), ctypes.c_ubyte(0),
            ctypes.c_size_t(self._other.nbytes), self.stream.handle,
        )  # fmt: skip

    def seconds(self, queue: Queue) -> float:
        """Between events before and after what ``queue`` queues; launches overlap the flush."""
        self.stream.wait()
        self.flush()
        driver().call("cuEventRecord", self._start, self.stream.handle)
        queue()
        driver().call("cuEventRecord", self._stop, self.stream.handle)
        self.stream.wait()
        milliseconds = ctypes.c_float()
        driver().call("cuEventElapsedTime", ctypes.byref(milliseconds), self._start, self._stop)
        return milliseconds.value / 1e3

    def __del__(self) -> None:
        for event in (self._start, self._stop):
            if event:
                driver().call("cuEventDestroy_v2", event)


class Copy:
    """The limit of anything that reads and writes ``nbytes`` in all: half of them copied."""

    def __init__(self, nbytes: int, stream: Stream) -> None:
        self._bytes, self._stream = max(1, nbytes // 2), stream
        self._source = DeviceBuffer(self._bytes, stream)
        self._target = DeviceBuffer(self._bytes, stream)

    def __call__(self) -> None:
        """Queue it."""
        driver().call(
            "cuMemcpyDtoDAsync_v2", ctypes.c_void_p(self._target.address),
            ctypes.c_void_p(self._source.address), ctypes.c_size_t(self._bytes),
            self._stream.handle,
        )  # fmt: skip


class Replay:
    """A graph of ``queues`` in order, each run before; it keeps them and so their memory."""

    def __init__(self, queues: Sequence[Queue], stream: Stream) -> None:
        self._queues, self._stream = queues, stream
        with stream.capture() as self.graph:
            for queue in queues:
                queue()

    def __call__(self) -> None:
        """Queue it."""
        self.graph.launch(self._stream)


def attribute(name: str) -> int:
    """One number the driver knows about the GPU."""
    value, device = ctypes.c_int(), ctypes.c_int()
    driver().call("cuDeviceGet", device, 0)
    driver().call(
        "cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(_ATTRIBUTES[name]), device
    )
    return value.value


def device_facts() -> dict[str, Any]:
    """Name, sizes and nominal clocks of the GPU."""
    version, memory, device = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_int()
    driver().call("cuDriverGetVersion", ctypes.byref(version))
    driver().call("cuDeviceGet", device, 0)
    driver().call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    numbers = {name: attribute(name) for name in _ATTRIBUTES}
    return {"gpu": driver().name(), "memory_bytes": memory.value,
            "cuda_driver": version.value, **numbers}  # fmt: skip


def clocks_now() -> dict[str, str]:
    """Clocks, power and temperature at this moment as nvidia-smi says; empty without it."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return {}
    query = [smi, f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(query, capture_output=True, text=True)
    if done.returncode != 0:
        return {}
    values = (value.strip() for value in done.stdout.strip().split(","))
    return dict(zip(_SMI_FIELDS, values, strict=False))
