"""The CUDA kernels through the C API on a GPU, with numpy arrays on the outside.

``DeviceRun`` is one call and the device memory of its operands; ``run_gpu`` one call on a case.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path

import numpy as np

from tests.cases import Array, Inputs, OpCase
from tests.gpu.driver import DeviceBuffer, Stream, why_no_gpu
from tests.plugins.kernels import (
    OP_NAMES,
    Call,
    Status,
    element,
    letters_of,
    shape_of,
    sizes_of,
)
from xlstm_export.native import FOLDER_VARIABLE
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "libxlstm_cuda_c.so"


def library_path() -> Path:
    """Where the library lies: the folder that XLSTM_LIBRARY_DIR names, or the package's lib."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder or ROOT / "xlstm_export" / "lib") / LIBRARY


def why_not() -> str | None:
    """Why nothing can run here; None where it can."""
    if not library_path().is_file():
        return f"no {library_path()}: build with -DXLSTM_CUDA=ON"
    return why_no_gpu()


@cache
def library() -> ctypes.CDLL:
    """The library with its signatures declared."""
    lib = ctypes.CDLL(str(library_path()))
    call = ctypes.POINTER(Call)
    lib.xlstm_cuda_workspace_size.argtypes = [call, ctypes.POINTER(ctypes.c_size_t)]
    lib.xlstm_cuda_launch.argtypes = [call, ctypes.c_void_p]
    lib.xlstm_cuda_variant.argtypes = [call, ctypes.POINTER(ctypes.c_char_p)]
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    lib.xlstm_cuda_likeliest.argtypes = [pointer, pointer, count, count, pointer, pointer, pointer]
    return lib


PLAIN = "plain"
"""The variant that takes every call."""
VARIABLES = {
    "XlstmMLSTM": "XLSTM_CUDA_MLSTM",
    "XlstmSLSTM": "XLSTM_CUDA_SLSTM",
    "XlstmCausalConv1d": "XLSTM_CUDA_CONV1D",
}
"""Of the environment: the variant of each operator to take, where not the first that fits."""


@contextmanager
def forced(op: str, variant: str) -> Iterator[None]:
    """Launches of ``op`` in the body take ``variant``; after it those that were taken before."""
    before = os.environ.get(VARIABLES[op])
    os.environ[VARIABLES[op]] = variant
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLES[op]]
        else:
            os.environ[VARIABLES[op]] = before


def bare_call(case: OpCase, tx: str, sizes: Mapping[str, int]) -> Call:
    """Sizes, type and attributes, without operands."""
    call = Call(op=OP_NAMES.index(case.op), dtype=TX_DTYPES.index(tx))
    for index, letter in enumerate(letters_of(CATALOG[case.op])):
        call.sizes[index] = sizes[letter]
    for index, value in enumerate(case.attribute_values().values()):
        call.attributes[index] = value
    return call


def variant_of(case: OpCase, tx: str) -> str:
    """Which of the operator's kernels such a call takes."""
    name = ctypes.c_char_p()
    status = Status(library().xlstm_cuda_variant(bare_call(case, tx, case.size), name))
    assert status == Status.OK, f"{case} {tx}: {status.name}"
    return (name.value or b"").decode()


class DeviceRun:
    """One call. Inputs may be written again and outputs read between launches."""

    def __init__(
        self,
        case: OpCase,
        inputs: Mapping[str, Array],
        tx: str,
        *,
        alias: bool = False,
        shift: int = 0,
        stream: Stream | None = None,
    ) -> None:
        self.case, self.schema, self.tx = case, CATALOG[case.op], tx
        self.stream = stream or Stream()
        sizes = sizes_of(self.schema, inputs)
        self.shapes = {spec.name: shape_of(spec, sizes) for spec in self.schema.outputs}
        self.inputs: dict[str, DeviceBuffer] = {}
        for spec in self.schema.inputs:
            array = inputs[spec.name].astype(element(spec, tx))
            self.inputs[spec.name] = self._buffer(array.nbytes, shift * array.itemsize)
            self.inputs[spec.name].write(array)
        continued = {out: given for given, out in self.schema.states} if alias else {}
        self.outputs: dict[str, DeviceBuffer] = {}
        for spec in self.schema.outputs:
            itemsize = element(spec, tx).itemsize
            self.outputs[spec.name] = (
                self.inputs[continued[spec.name]]
                if spec.name in continued
                else self._buffer(prod(self.shapes[spec.name]) * itemsize, shift * itemsize)
            )
        self.call = self._call(sizes, len(inputs["lengths"]))

    def _buffer(self, nbytes: int, shift: int) -> DeviceBuffer:
        return DeviceBuffer(nbytes, self.stream, shift)

    def _call(self, sizes: Mapping[str, int], lengths_size: int) -> Call:
        call = bare_call(self.case, self.tx, sizes)
        call.lengths_size = lengths_size
        for index, buffer in enumerate(self.inputs.values()):
            call.inputs[index] = buffer.address
        for index, buffer in enumerate(self.outputs.values()):
            call.outputs[index] = buffer.address
        size = ctypes.c_size_t()
        assert library().xlstm_cuda_workspace_size(call, size) == Status.OK
        self.workspace = self._buffer(size.value, 0)
        call.workspace, call.workspace_size = self.workspace.address, size.value
        return call

    def write(self, inputs: Mapping[str, Array]) -> None:
        """Other values for some inputs."""
        for spec in self.schema.inputs:
            if spec.name in inputs:
                self.inputs[spec.name].write(inputs[spec.name].astype(element(spec, self.tx)))

    def launch(self) -> None:
        """Queue the call."""
        status = Status(library().xlstm_cuda_launch(self.call, self.stream.handle))
        assert status == Status.OK, f"{self.case} {self.tx}: {status.name}"

    def results(self) -> dict[str, Array]:
        """The outputs, once the stream is done; every canary is looked at."""
        self.workspace.read(np.dtype(np.uint8), (self.workspace.nbytes,))
        for spec in self.schema.inputs:
            self.inputs[spec.name].read(np.dtype(np.uint8), (self.inputs[spec.name].nbytes,))
        return {
            spec.name: self.outputs[spec.name].read(element(spec, self.tx), self.shapes[spec.name])
            for spec in self.schema.outputs
        }

    def exchange_states(self) -> None:
        """Outputs become inputs and the other way round, for the next step."""
        inputs, outputs = list(self.inputs), list(self.outputs)
        for given, out in self.schema.states:
            self.inputs[given], self.outputs[out] = self.outputs[out], self.inputs[given]
            self.call.inputs[inputs.index(given)] = self.inputs[given].address
            self.call.outputs[outputs.index(out)] = self.outputs[out].address


def run_gpu(
    case: OpCase, inputs: Inputs, tx: str, *, alias: bool = False, shift: int = 0
) -> dict[str, Array]:
    """Outputs by name, in their own types."""
    run = DeviceRun(case, inputs, tx, alias=alias, shift=shift)
    run.launch()
    return run.results()


def choose(logits: Array, steps: Array) -> tuple[Array, Array]:
    """Likeliest token [B] and its logit [B] at step ``steps`` [B] of each row of ``logits``."""
    batch, length, vocabulary = logits.shape
    stream = Stream()
    given, tokens, values = (
        DeviceBuffer(nbytes, stream) for nbytes in (logits.nbytes, 8 * batch, 4 * batch)
    )
    given.write(logits)
    starts = np.ascontiguousarray((np.arange(batch) * length + steps) * vocabulary, np.int64)
    status = library().xlstm_cuda_likeliest(
        given.address, starts.ctypes.data, batch, vocabulary, tokens.address, values.address,
        stream.handle,
    )  # fmt: skip
    assert status == Status.OK, Status(status).name
    given.read(logits.dtype, logits.shape)  # its canaries
    shape = (batch,)
    return tokens.read(np.dtype(np.int64), shape), values.read(np.dtype(np.float32), shape)
