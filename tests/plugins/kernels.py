"""The C library of the kernels through ctypes, with numpy arrays; every buffer is guarded.

``run_kernel`` is one call on a case. Each operand lies in memory of its own, one element past an
aligned address, between canary bytes that are checked; outputs and workspace start as NaN.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from enum import IntEnum
from functools import cache
from math import prod
from typing import Any

import numpy as np

from tests.cases import NUMPY_DTYPES, Array, Inputs, OpCase
from xlstm_export.native import c_library_path
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES, OpSchema, TensorSpec, state_dtype

ALIGNMENT = 64
CANARY, NAN_BYTE = 0xA5, 0xFF
OP_NAMES = tuple(CATALOG)


class Status(IntEnum):
    """The answers of status.h."""

    OK = 0
    BAD_OP = 1
    BAD_DTYPE = 2
    BAD_SIZE = 3
    TOO_LARGE = 4
    BAD_LENGTHS = 5
    BAD_ATTRIBUTE = 6
    NULL_POINTER = 7
    MISALIGNED = 8
    BAD_ALIAS = 9
    SMALL_WORKSPACE = 10
    UNAVAILABLE = 11
    LAUNCH_FAILED = 12


class Call(ctypes.Structure):
    """``xlstm_call`` of xlstm_c.h."""

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


@cache
def library() -> ctypes.CDLL:
    """The library with its signatures declared. Raises RuntimeError where there is none."""
    path = c_library_path()
    if path is None:
        raise RuntimeError("there is no libxlstm_c: `make wheel` builds it")
    lib = ctypes.CDLL(str(path))
    call, size, status = ctypes.POINTER(Call), ctypes.POINTER(ctypes.c_size_t), ctypes.c_int32
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "xlstm_version": (ctypes.c_char_p, []),
        "xlstm_status_message": (ctypes.c_char_p, [ctypes.c_int32]),
        "xlstm_find_op": (ctypes.c_int32, [ctypes.c_char_p]),
        "xlstm_cpu_isa": (status, [ctypes.POINTER(ctypes.c_char_p)]),
        "xlstm_pool_create": (ctypes.c_void_p, [ctypes.c_int32]),
        "xlstm_pool_destroy": (None, [ctypes.c_void_p]),
        "xlstm_cpu_workspace_size": (status, [call, ctypes.c_int32, size]),
        "xlstm_cpu_packed_size": (status, [call, size]),
        "xlstm_cpu_pack": (status, [call, ctypes.c_void_p]),
        "xlstm_cpu_run": (status, [call, ctypes.c_void_p]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    place = ctypes.POINTER(ctypes.c_void_p)
    libc.posix_memalign.argtypes = [place, ctypes.c_size_t, ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    return libc


class Buffer:
    """``nbytes`` of heap, ``shift`` bytes past a multiple of 64, canaries on both sides.

    With ``guard`` 0 the allocation ends where the buffer does, so AddressSanitizer sees overruns.
    """

    def __init__(self, nbytes: int, shift: int = 0, guard: int = ALIGNMENT) -> None:
        self._first = ALIGNMENT + shift
        total = self._first + nbytes + guard
        place = ctypes.c_void_p()
        if _libc().posix_memalign(place, ALIGNMENT, total):
            raise MemoryError(f"no {total} bytes")
        self._base = int(place.value or 0)
        self._all = np.frombuffer((ctypes.c_char * total).from_address(self._base), np.uint8)
        self._all[:] = CANARY
        self.nbytes = nbytes
        self.address = self._base + self._first
        self.bytes = self._all[self._first : self._first + nbytes]
        self.bytes[:] = NAN_BYTE

    def view(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """The memory as an array; valid while the buffer lives."""
        return self.bytes.view(np.uint8).view(dtype).reshape(shape)

    def assert_intact(self, what: str) -> None:
        """Fail where something wrote beside the buffer."""
        assert (self._all[: self._first] == CANARY).all(), f"{what}: written before its begin"
        assert (self._all[self._first + self.nbytes :] == CANARY).all(), f"{what}: past its end"

    def __del__(self) -> None:
        if getattr(self, "_base", None):
            _libc().free(self._base)


class Pool:
    """Threads that calls share; those of several callers take turns."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.handle = library().xlstm_pool_create(threads)
        if not self.handle:
            raise ValueError(f"no pool of {threads} threads")

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            library().xlstm_pool_destroy(self.handle)


shared_pool = cache(Pool)
"""A pool of so many threads that lives as long as the process."""


def letters_of(schema: OpSchema) -> tuple[str, ...]:
    """Dimension letters in the order of ``xlstm_call.sizes``: first appearance in the inputs."""
    dims = [d for spec in schema.inputs if spec.type != "lengths" for d in spec.dims]
    return tuple(dict.fromkeys(d for d in dims if d.isalpha()))


def element(spec: TensorSpec, tx: str) -> np.dtype[Any]:
    """Numpy type of an operand where the activations are ``tx``."""
    if spec.type == "lengths":
        return np.dtype(np.int32)
    return NUMPY_DTYPES[tx if spec.type == "TX" else state_dtype(tx)]


def sizes_of(schema: OpSchema, inputs: Mapping[str, Array]) -> dict[str, int]:
    """Size of each letter, from the arrays themselves."""
    found: dict[str, int] = {}
    for spec in schema.inputs:
        if spec.type != "lengths":
            pairs = zip(spec.dims, inputs[spec.name].shape, strict=True)
            found.update({d: n for d, n in pairs if d.isalpha()})
    return found


def shape_of(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """``spec.dims`` as numbers; not for lengths."""
    known = {**sizes, "4": 4, "W-1": sizes.get("W", 0) - 1}
    return tuple(known[d] for d in spec.dims)


class KernelRun:
    """One call and the memory of its operands. ``call`` may be changed before ``run``."""

    def __init__(
        self,
        case: OpCase,
        inputs: Mapping[str, Array],
        tx: str,
        *,
        alias: bool = False,
        shift: int = 1,
        guard: int = ALIGNMENT,
    ) -> None:
        self.schema, self.tx, self.guard = CATALOG[case.op], tx, guard
        sizes = sizes_of(self.schema, inputs)
        self.inputs, self.outputs = {}, {}
        for spec in self.schema.inputs:
            array = np.ascontiguousarray(inputs[spec.name].astype(element(spec, tx)))
            buffer = Buffer(array.nbytes, shift * array.itemsize, guard)
            buffer.bytes[:] = array.reshape(-1).view(np.uint8)
            self.inputs[spec.name] = buffer
        continued = {out: given for given, out in self.schema.states} if alias else {}
        self.shapes = {spec.name: shape_of(spec, sizes) for spec in self.schema.outputs}
        for spec in self.schema.outputs:
            kind = element(spec, tx)
            self.outputs[spec.name] = (
                self.inputs[continued[spec.name]]
                if spec.name in continued
                else Buffer(
                    prod(self.shapes[spec.name]) * kind.itemsize, shift * kind.itemsize, guard
                )
            )
        self.call = Call(op=OP_NAMES.index(case.op), dtype=TX_DTYPES.index(tx))
        self.call.sizes[:] = _padded([sizes[d] for d in letters_of(self.schema)], 5)
        self.call.lengths_size = len(inputs["lengths"])
        self.call.inputs[:] = _padded([b.address for b in self.inputs.values()], 9)
        self.call.outputs[:] = _padded([b.address for b in self.outputs.values()], 5)
        self.call.attributes[:] = _padded(list(case.attribute_values().values()), 8)
        self.workspace: Buffer | None = None
        self.packed: Buffer | None = None

    def pack(self) -> None:
        """Pack the constant operand and take its own pointer away; nothing where none is packed."""
        size = ctypes.c_size_t()
        _expect_ok(library().xlstm_cpu_packed_size(self.call, size), "packed size")
        if size.value == 0:
            return
        self.packed = Buffer(size.value, 0, self.guard)
        _expect_ok(library().xlstm_cpu_pack(self.call, self.packed.address), "pack")
        self.packed.assert_intact("packed")
        self.call.packed = self.packed.address
        self.call.inputs[constant_index(self.schema)] = None

    def workspace_size(self, threads: int) -> int:
        """Bytes the call asks for; the call must be a good one."""
        size = ctypes.c_size_t()
        _expect_ok(library().xlstm_cpu_workspace_size(self.call, threads, size), "workspace size")
        return size.value

    def add_workspace(self, threads: int) -> None:
        """A workspace of exactly the size asked for."""
        self.workspace = Buffer(self.workspace_size(threads), 0, self.guard)
        self.call.workspace = self.workspace.address
        self.call.workspace_size = self.workspace.nbytes

    def run(self, pool: Pool | None = None) -> Status:
        """Status of the call, after a look at every guard."""
        status = Status(library().xlstm_cpu_run(self.call, pool.handle if pool else None))
        for name, buffer in {**self.inputs, **self.outputs}.items():
            buffer.assert_intact(name)
        for what, extra in (("workspace", self.workspace), ("packed", self.packed)):
            if extra is not None:
                extra.assert_intact(what)
        return status

    def results(self) -> dict[str, Array]:
        """Copies of the outputs."""
        return {
            spec.name: self.outputs[spec.name]
            .view(element(spec, self.tx), self.shapes[spec.name])
            .copy()
            for spec in self.schema.outputs
        }


def constant_index(schema: OpSchema) -> int:
    """Index of the operand that ``xlstm_cpu_pack`` takes."""
    return [spec.name in ("R", "w") for spec in schema.inputs].index(True)


def run_kernel(
    case: OpCase,
    inputs: Inputs,
    tx: str,
    *,
    threads: int = 1,
    pool: Pool | None = None,
    alias: bool = False,
    packed: bool = False,
    shift: int = 1,
    guard: int = ALIGNMENT,
) -> dict[str, Array]:
    """Outputs by name, in their own types. One thread means no pool unless one is given.

    Sizes come from ``inputs``. Raises AssertionError where the status is not OK, a byte beside a
    buffer changed, or an input changed that no output continues in place.
    """
    kernel = KernelRun(case, inputs, tx, alias=alias, shift=shift, guard=guard)
    before = {name: b.bytes.copy() for name, b in kernel.inputs.items()}
    if packed:
        kernel.pack()
    if pool is None and threads > 1:
        pool = shared_pool(threads)
    kernel.add_workspace(pool.threads if pool else 1)
    _expect_ok(kernel.run(pool), str(case))
    written = {given for given, _ in kernel.schema.states} if alias else set()
    for name in before.keys() - written:
        assert (kernel.inputs[name].bytes == before[name]).all(), f"input {name} was written"
    return kernel.results()


def isa() -> tuple[Status, str]:
    """The instruction set in use and whether it is the one asked for."""
    name = ctypes.c_char_p()
    status = Status(library().xlstm_cpu_isa(name))
    assert name.value is not None
    return status, name.value.decode()


def message(status: int) -> str:
    """What a status means, as the library says it."""
    return str(library().xlstm_status_message(status).decode())


def _padded(values: list[Any], length: int) -> list[Any]:
    return values + [0] * (length - len(values))


def _expect_ok(status: int, what: str) -> None:
    assert status == Status.OK, f"{what}: {message(status)}"
