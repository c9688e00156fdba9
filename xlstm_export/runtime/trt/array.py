"""Arrays on the device: our own, handed out without a copy, and other libraries', read in place."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from cuda.core.utils import StridedMemoryView

from xlstm_export.errors import EngineError
from xlstm_export.runtime.choice import Choice, likeliest, paired
from xlstm_export.runtime.rows import last_indices
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.trt import dlpack
from xlstm_export.runtime.trt.device import CPU, CUDA_HOST, CUDA_MANAGED, Device, DeviceMemoryError

ALIGNMENT = 256
"""Of every tensor, in bytes: what cudaMalloc gives and TensorRT's kernels may count on."""


class Buffer:
    """Bytes on the device; they go back to their pool when nobody holds this object."""

    def __init__(self, pool: Pool, address: int, size: int) -> None:
        self.pool = pool
        self.address = address
        self.size = size


class Pool:
    """Device memory that is used again: in a steady loop nothing is allocated.

    All work is on one stream, so a buffer may be taken again while the last reader is queued.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._idle: list[tuple[int, int]] = []
        self._closed = False
        # buffers hold their pool, so it dies after the last of them
        weakref.finalize(self, _free, device, self._idle).atexit = False

    def take(self, size: int) -> Buffer:
        """At least ``size`` bytes, with anything in them. Raises DeviceMemoryError."""
        size = max(size, ALIGNMENT)
        fitting = [(s, i) for i, (s, _) in enumerate(self._idle) if size <= s <= 2 * size]
        if fitting:
            size, address = self._idle.pop(min(fitting)[1])
        else:
            address = self._allocate(size)
        buffer = Buffer(self, address, size)
        weakref.finalize(buffer, self._put_back, size, address).atexit = False
        return buffer

    def release(self) -> None:
        """Free what nobody holds."""
        _free(self.device, self._idle)

    def close(self) -> None:
        """Free what nobody holds, and from now on what comes back."""
        self._closed = True
        self.release()

    def _allocate(self, size: int) -> int:
        try:
            return self.device.allocate(size)
        except DeviceMemoryError:
            self.release()
            return self.device.allocate(size)

    def _put_back(self, size: int, address: int) -> None:
        self._idle.append((size, address))
        if self._closed:
            self.release()


def _free(device: Device, idle: list[tuple[int, int]]) -> None:
    while idle:
        device.free(idle.pop()[1])


class DeviceArray:
    """A C-contiguous array in device memory, for NumPy, PyCUDA, CuPy, Numba and torch.

    Dropping it gives the memory back: work queued on a stream of your own must be done, or ordered
    before the session's, by then. Other libraries keep it alive while they hold what it lent them.
    """

    def __init__(
        self, device: Device, address: int, shape: Sequence[int], dtype: Any, owner: object
    ) -> None:
        self.device = device
        self.address = address
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self._owner = owner

    @property
    def is_pooled(self) -> bool:
        """Whether the memory is a session's own: the order of its stream protects it."""
        return isinstance(self._owner, Buffer)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(math.prod(self.shape) * self.dtype.itemsize)

    @classmethod
    def gather(cls, arrays: Sequence[DeviceArray], indices: Array) -> DeviceArray:
        """Rows ``indices`` of ``arrays`` one below the other, on the device; -1 is a row of zeros.

        The memory is of the first one's pool.
        """
        first = arrays[0]
        if not isinstance(first._owner, Buffer):
            raise EngineError("rows are gathered of what a session made, not of arrays it was lent")
        rows = [(array, row) for array in arrays for row in range(array.shape[0])]
        made = new_array(first._owner.pool, (len(indices), *first.shape[1:]), first.dtype)
        size = math.prod(first.shape[1:]) * first.dtype.itemsize
        for place_in, index in enumerate(indices):
            to = made.address + place_in * size
            if index < 0:
                first.device.zero(to, size)
                continue
            array, row = rows[index]
            first.device.copy(to, array.address + row * size, size)
        return made

    def last_steps(self, lengths: Array | None) -> Array:
        """[B,1,...] on the host: of [B,T,...] each row's last step, that of ``lengths`` [B]."""
        batch, steps = self.shape[:2]
        if steps == 1:
            return self.numpy()
        last = last_indices(lengths, batch, steps)
        found = np.empty((batch, 1, *self.shape[2:]), self.dtype)
        size = found[:1].nbytes
        for row, step in enumerate(last):
            self.device.download(found[row], self.address + (row * steps + int(step)) * size)
        return found

    def likeliest(self, lengths: Array | None, pool: Pool) -> list[Choice]:
        """Of logits [B,T,V] each row's likeliest token after its last step.

        Where the device has a kernel for it, which is for float32, 12 bytes a row come to the host,
        else the last steps do. ``pool`` has the memory for it.
        """
        batch, steps, vocabulary = self.shape
        starts = (np.arange(batch) * steps + last_indices(lengths, batch, steps)) * vocabulary
        found = new_array(pool, (12 * batch,), np.uint8)  # tokens int64 [B], their logits [B]
        places = (found.address, found.address + 8 * batch)
        if self.dtype == np.float32 and self.device.likeliest(
            self.address, starts, vocabulary, *places
        ):
            tokens, logits = np.split(found.numpy(), [8 * batch])
            return paired(tokens.view(np.int64), logits.view(np.float32))
        return likeliest(self.last_steps(lengths)[:, 0])

    def numpy(self) -> Array:
        """A copy on the host, when the stream has come this far."""
        array = np.empty(self.shape, self.dtype)
        self.device.download(array, self.address)
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("an array on the device has no view on the host")
        return self.numpy() if dtype is None else self.numpy().astype(dtype, copy=False)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3: readers that honour ``stream`` wait for the session's work by themselves."""
        if self.dlpack_kind in (CPU, CUDA_HOST):
            raise AttributeError("this array is not in a GPU's memory")
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": self.device.stream,
        }

    @property
    def dlpack_kind(self) -> int:
        """Kind of memory, as DLPack numbers it."""
        return self.device.dlpack[0]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device.dlpack

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule; ``stream`` (None: the default one, -1: no order wanted) waits for ours.

        It is always of the oldest version. Raises BufferError for a copy or another device.
        """
        if copy or dl_device not in (None, self.device.dlpack):
            raise BufferError("this array is lent as it is, where it is; copy what it becomes")
        if self.dlpack_kind != CPU and stream != -1:
            self.device.let_wait(1 if stream is None else stream)
        return dlpack.make_capsule(self.address, self.device.dlpack, self.dtype, self.shape, self)

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}{list(self.shape)} on {self.device.name})"


def new_array(pool: Pool, shape: Sequence[int], dtype: Any) -> DeviceArray:
    """An array of the pool's memory, with anything in it."""
    buffer = pool.take(math.prod(shape) * np.dtype(dtype).itemsize)
    return DeviceArray(pool.device, buffer.address, shape, dtype, buffer)


def place(pool: Pool, name: str, array: Any, dtype: Any) -> DeviceArray:
    """``array`` on the pool's device as ``dtype``: read in place where it is there already.

    Host arrays are converted and copied. Raises EngineError naming ``name`` for a device array of
    another type, or one that is not C-contiguous.
    """
    lent = borrow(pool.device, name, array)
    if lent is None:
        with _reading(name, array):
            host = np.ascontiguousarray(_on_host(array), dtype).reshape(np.shape(array))
        placed = new_array(pool, host.shape, dtype)
        pool.device.upload(placed.address, host)
        return placed
    if lent.dtype != dtype:
        raise EngineError(
            f"{name}: {lent.dtype} on the GPU, where the engine takes {np.dtype(dtype)}; convert "
            "it there, or give a host array"
        )
    if lent.address % ALIGNMENT == 0:
        return lent
    placed = new_array(pool, lent.shape, dtype)
    pool.device.copy(placed.address, lent.address, lent.nbytes)
    # the source lives as long as the copy, which is read no earlier than it is made
    return DeviceArray(pool.device, placed.address, placed.shape, dtype, (placed, lent))


def borrow(device: Device, name: str, array: Any) -> DeviceArray | None:
    """``array`` where it lies on ``device``, with its writers waited for; None: it is on the host.

    Raises EngineError for one that is on another device, not C-contiguous or not given away.
    """
    if isinstance(array, DeviceArray):
        if array.device is device:
            return array
        device.check_address(array.address)
        device.wait_for(array.device.stream)
        return DeviceArray(device, array.address, array.shape, array.dtype, array)
    if isinstance(array, np.ndarray):
        return None
    with _reading(name, array):
        interface = getattr(array, "__cuda_array_interface__", None)
    lends = hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__")
    # an interface without a stream (torch's) says nothing of its writers: DLPack waits for them
    if interface is not None and ("stream" in interface or not lends):
        return _from_interface(device, name, interface, array)
    return _from_dlpack(device, name, array) if lends else None


def _from_dlpack(device: Device, name: str, array: Any) -> DeviceArray | None:
    with _reading(name, array):
        kind, index = array.__dlpack_device__()
    if kind in {CPU, CUDA_HOST} - {device.dlpack[0]}:
        return None
    if (kind, index) != device.dlpack and kind != CUDA_MANAGED:
        raise EngineError(f"{name}: an array of another device; move it to {device.name}")
    with _reading(name, array):
        view = StridedMemoryView.from_dlpack(array, stream_ptr=device.stream or -1)
        dtype = np.dtype(view.dtype)
    if not dlpack.is_contiguous(view.shape, view.strides):
        raise _strided(name)
    return DeviceArray(device, view.ptr, view.shape, dtype, view)


def _from_interface(
    device: Device, name: str, interface: dict[str, Any], owner: object
) -> DeviceArray:
    typestr = str(interface["typestr"])
    dtype = dlpack.BFLOAT16 if typestr[1:] == "V2" else np.dtype(typestr)
    shape = tuple(int(size) for size in interface["shape"])
    steps = interface.get("strides")
    strides = None if steps is None else tuple(step // dtype.itemsize for step in steps)
    if not dlpack.is_contiguous(shape, strides):
        raise _strided(name)
    address = int(interface["data"][0])
    device.check_address(address)
    if interface.get("stream") is not None:
        device.wait_for(int(interface["stream"]))
    return DeviceArray(device, address, shape, dtype, owner)


@contextmanager
def _reading(name: str, array: Any) -> Iterator[None]:
    """What the array's library raises becomes an EngineError that names the input."""
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        what = str(error) or type(error).__name__
        cure = (
            "give it without gradients: detach() it"
            if getattr(array, "requires_grad", False)
            else "give a plain array, such as numpy's"
        )
        raise EngineError(f"{name}: cannot be read ({what}); {cure}") from error


def _strided(name: str) -> EngineError:
    return EngineError(f"{name}: not C-contiguous on the GPU; make a contiguous copy of it")


def _on_host(array: Any) -> Array:
    """As numpy; what numpy cannot take (torch's bfloat16) is read through DLPack."""
    try:
        return np.asarray(array)
    except TypeError:
        if not hasattr(array, "__dlpack__"):
            raise
    view = StridedMemoryView.from_dlpack(array, stream_ptr=-1)
    steps = view.strides or dlpack.contiguous_strides(view.shape)
    reach = 1 + sum((n - 1) * step for n, step in zip(view.shape, steps, strict=True))
    dtype = np.dtype(view.dtype)
    memory = (ctypes.c_char * (reach * dtype.itemsize)).from_address(view.ptr)
    strides = [step * dtype.itemsize for step in steps]
    flat = np.frombuffer(memoryview(memory), dtype)
    return np.lib.stride_tricks.as_strided(flat, view.shape, strides).copy()
