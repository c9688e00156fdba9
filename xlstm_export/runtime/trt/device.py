"""The GPU's memory and one stream on it, through NVIDIA's ``cuda-python``.

Everything above this file sees a ``Device``: the tests put host memory in its place. ``CudaDevice``
itself needs a driver to do anything; without one only its refusal has been run.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, EngineError
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.trt.kernels import cuda_kernels

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
"""Kinds of memory, as DLPack numbers them."""
_INSUFFICIENT_DRIVER, _NO_DEVICE = 35, 100
"""cudaErrorInsufficientDriver (also: no driver at all) and cudaErrorNoDevice."""

_NO_DRIVER = (
    "engines run on an NVIDIA GPU, and this machine has no NVIDIA driver: install it, or run the "
    "bundle in ONNX Runtime (leave --engine out)"
)


class DeviceMemoryError(EngineError):
    """No memory left on the device."""


class Device(Protocol):
    """Memory by address, and one stream: its operations run in the order they are asked for."""

    name: str
    compute_capability: str
    """Such as 8.9."""
    dlpack: tuple[int, int]
    """Kind of memory and index of the device, as DLPack numbers them."""
    stream: int
    """Handle of the stream."""

    def activate(self) -> None:
        """Make this the device of the calling thread."""
        ...

    def allocate(self, size: int) -> int:
        """Address of ``size`` new bytes, aligned to 256. Raises DeviceMemoryError."""
        ...

    def free(self, address: int) -> None:
        """Give back what ``allocate`` returned, once the stream is done with it."""
        ...

    def zero(self, address: int, size: int) -> None:
        """Set bytes to zero, on the stream."""
        ...

    def upload(self, address: int, array: Array) -> None:
        """Copy a C-contiguous host array here, on the stream; it may be changed afterwards."""
        ...

    def download(self, array: Array, address: int) -> None:
        """Fill a C-contiguous host array; waits for the stream."""
        ...

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy within the device, on the stream."""
        ...

    def likeliest(
        self, logits: int, starts: Array, vocabulary: int, tokens: int, values: int
    ) -> bool:
        """As ``CudaKernels.likeliest``, on the stream; False: there are no kernels."""
        ...

    def check_address(self, address: int) -> None:
        """Raises EngineError when ``address`` is not in this device's memory."""
        ...

    def wait_for(self, stream: int) -> None:
        """What follows on our stream waits for what another stream was given so far."""
        ...

    def let_wait(self, stream: int) -> None:
        """What follows on another stream waits for what ours was given so far."""
        ...

    def synchronize(self) -> None:
        """Wait until the stream is done."""
        ...

    def capture(self, work: Callable[[], object]) -> Any:
        """A graph of what ``work`` asks of the stream, which does not run now."""
        ...

    def launch(self, graph: Any) -> None:
        """Run what ``capture`` recorded, on the stream."""
        ...

    def drop(self, graph: Any) -> None:
        """Give a graph back that is not running."""
        ...


class CudaDevice:
    """GPU number ``index``. Raises BackendUnavailableError with what is missing."""

    def __init__(self, index: int = 0) -> None:
        self._cuda = import_cuda()
        _check_driver(self._cuda, index)
        self.index = index
        self.dlpack = (CUDA, index)
        self.activate()
        properties = self._call("cudaGetDeviceProperties", index)
        name = properties.name
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.compute_capability = f"{properties.major}.{properties.minor}"
        # an ordinary stream: it keeps order with the default stream, which PyCUDA works on
        self.stream = int(self._call("cudaStreamCreate"))
        self._event = self._call("cudaEventCreateWithFlags", self._cuda.cudaEventDisableTiming)
        for destroy, what in (
            (self._cuda.cudaStreamDestroy, self.stream),
            (self._cuda.cudaEventDestroy, self._event),
        ):
            weakref.finalize(self, destroy, what).atexit = False

    def activate(self) -> None:
        """As ``Device.activate``."""
        self._call("cudaSetDevice", self.index)

    def allocate(self, size: int) -> int:
        """As ``Device.allocate``."""
        error, address = self._cuda.cudaMalloc(size)
        if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            self._cuda.cudaGetLastError()  # not to be met by the next call
            raise DeviceMemoryError(
                f"{self.name}: no memory for {size} bytes; use a smaller batch or shorter pieces"
            )
        self._check(error, "cudaMalloc")
        return int(address)

    def free(self, address: int) -> None:
        """As ``Device.free``."""
        self._call("cudaStreamSynchronize", self.stream)
        self._call("cudaFree", address)

    def zero(self, address: int, size: int) -> None:
        """As ``Device.zero``."""
        self._call("cudaMemsetAsync", address, 0, size, self.stream)

    def upload(self, address: int, array: Array) -> None:
        """As ``Device.upload``: memory CUDA does not know is staged before the copy returns."""
        source = array.ctypes.data
        self._copy(address, source, array.nbytes, "cudaMemcpyHostToDevice")
        kind = self._call("cudaPointerGetAttributes", source).type
        if kind != self._cuda.cudaMemoryType.cudaMemoryTypeUnregistered:
            self.synchronize()  # pinned or managed: it is read while the stream runs

    def download(self, array: Array, address: int) -> None:
        """As ``Device.download``."""
        self._copy(array.ctypes.data, address, array.nbytes, "cudaMemcpyDeviceToHost")
        self.synchronize()

    def copy(self, to: int, source: int, size: int) -> None:
        """As ``Device.copy``."""
        self._copy(to, source, size, "cudaMemcpyDeviceToDevice")

    def likeliest(
        self, logits: int, starts: Array, vocabulary: int, tokens: int, values: int
    ) -> bool:
        """As ``Device.likeliest``."""
        kernels = cuda_kernels()
        if kernels is None:
            return False
        kernels.likeliest(logits, starts, vocabulary, tokens, values, self.stream)
        return True

    def check_address(self, address: int) -> None:
        """As ``Device.check_address``; managed memory is everywhere."""
        found = self._call("cudaPointerGetAttributes", address)
        kinds = self._cuda.cudaMemoryType
        if found.type == kinds.cudaMemoryTypeManaged:
            return
        if found.type != kinds.cudaMemoryTypeDevice or found.device != self.index:
            raise EngineError(f"an array given is not in the memory of GPU {self.index}: move it")

    def wait_for(self, stream: int) -> None:
        """As ``Device.wait_for``."""
        self._call("cudaEventRecord", self._event, stream)
        self._call("cudaStreamWaitEvent", self.stream, self._event, 0)

    def let_wait(self, stream: int) -> None:
        """As ``Device.let_wait``."""
        self._call("cudaEventRecord", self._event, self.stream)
        self._call("cudaStreamWaitEvent", stream, self._event, 0)

    def synchronize(self) -> None:
        """As ``Device.synchronize``."""
        self._call("cudaStreamSynchronize", self.stream)

    def capture(self, work: Callable[[], object]) -> Any:
        """As ``Device.capture``; calls of other threads are no part of it."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)
        try:
            work()
        except BaseException:
            self._cuda.cudaStreamEndCapture(self.stream)  # else the stream stays as it is
            self._cuda.cudaGetLastError()
            raise
        graph = self._call("cudaStreamEndCapture", self.stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any) -> None:
        """As ``Device.launch``."""
        self._call("cudaGraphLaunch", graph, self.stream)

    def drop(self, graph: Any) -> None:
        """As ``Device.drop``."""
        self._call("cudaGraphExecDestroy", graph)

    def _copy(self, to: int, source: int, size: int, kind: str) -> None:
        direction = getattr(self._cuda.cudaMemcpyKind, kind)
        self._call("cudaMemcpyAsync", to, source, size, direction, self.stream)

    def _call(self, function: str, *arguments: Any) -> Any:
        """The result of a CUDA function. Raises EngineError naming function and error."""
        error, *results = getattr(self._cuda, function)(*arguments)
        self._check(error, function)
        return results[0] if results else None

    def _check(self, error: Any, function: str) -> None:
        if int(error):
            raise EngineError(f"GPU {self.index}: {function} failed with {error_text(error)}")


def import_cuda() -> Any:
    """The module ``cuda.bindings.runtime``. Raises BackendUnavailableError with the cure."""
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendUnavailableError(
            "engines run through NVIDIA's cuda-python, which is not installed (or too old): "
            f"{install('cuda-python')}"
        ) from error


def error_text(error: Any) -> str:
    """Name and number of a cudaError_t."""
    return f"{getattr(error, 'name', 'cudaError')} ({int(error)})"


def _check_driver(cuda: Any, index: int) -> None:
    try:
        error, count = cuda.cudaGetDeviceCount()
    except RuntimeError as missing:  # cuda-python 12, where libcuda is not there
        raise BackendUnavailableError(_NO_DRIVER) from missing
    if int(error) == _INSUFFICIENT_DRIVER:
        _, driver = cuda.cudaDriverGetVersion()
        _, runtime = cuda.cudaRuntimeGetVersion()
        if not driver:
            raise BackendUnavailableError(_NO_DRIVER)
        raise BackendUnavailableError(
            f"the NVIDIA driver is for CUDA {_version(driver)} and cuda-python for CUDA "
            f"{_version(runtime)}: update the driver, or "
            f"pip install 'cuda-python<{runtime // 1000}'"
        )
    if int(error) == _NO_DEVICE or (not int(error) and index >= count):
        found = "no NVIDIA GPU" if not count else f"{count} NVIDIA GPU(s), numbered from 0"
        raise BackendUnavailableError(
            f"GPU {index} was asked for, and the driver sees {found}: see CUDA_VISIBLE_DEVICES and "
            "nvidia-smi, or run the bundle in ONNX Runtime (leave --engine out)"
        )
    if int(error):
        raise BackendUnavailableError(
            f"CUDA does not start: cudaGetDeviceCount failed with {error_text(error)}; see what "
            "nvidia-smi says"
        )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
