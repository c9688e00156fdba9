"""What this machine reaches, measured beside what is judged by it: copying, and MatMul in fp32.

Rates count bytes read plus bytes written, and 2 M K N FLOP of a product [M,K] x [K,N].
"""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import Contender
from xlstm_export.runtime.ort import session_setting
from xlstm_export.runtime.session import Array

GEMM_SIZE = (2048, 2048, 2048)
"""M, K, N of the product whose rate stands for the machine's: all three large."""
COPIES = 20
"""Copies that threads make after one start, so that starting them does not count."""


def copy_contenders(nbytes: int, threads: int, *, in_place: bool = False) -> list[Contender]:
    """Ways to read ``nbytes`` and write as many; which one is fastest depends on the machine.

    ``in_place`` needs no second buffer: every float changes its sign where it lies, or one half of
    the buffer is copied onto the other.
    """
    work = 2.0 * nbytes
    if in_place:
        values = torch.randn(nbytes // 4)
        lower, upper = values.chunk(2)
        return [
            Contender("limit: torch neg_, in place", values.neg_, work=work),
            Contender(
                "limit: torch copy_, half onto half", lambda: upper.copy_(lower), work=work / 2
            ),
        ]
    source, target = torch.randn(nbytes // 4), torch.zeros(nbytes // 4)
    copier = ThreadedCopy(nbytes, threads)
    return [
        Contender("limit: torch copy_", lambda: target.copy_(source), work=work),
        Contender(f"limit: memcpy by {threads} threads", copier, work=work, repeats=COPIES),
    ]


class ThreadedCopy:
    """Each thread copies its own part ``COPIES`` times; a call ends when all have."""

    def __init__(self, nbytes: int, threads: int) -> None:
        libc = ctypes.CDLL(None)
        self._memcpy = libc.memcpy
        self._memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        self._source = np.ones(nbytes, np.uint8)
        self._target = np.zeros(nbytes, np.uint8)
        self._parts = np.linspace(0, nbytes, threads + 1).astype(int) // 64 * 64
        self._parts[-1] = nbytes
        self._start, self._end = threading.Barrier(threads), threading.Barrier(threads)
        for part in range(1, threads):
            threading.Thread(target=self._serve, args=(part,), daemon=True).start()

    def __call__(self) -> None:
        """Copy ``COPIES`` times."""
        self._start.wait()
        self._copy(0)
        self._end.wait()

    def _serve(self, part: int) -> None:
        while True:
            self._start.wait()
            self._copy(part)
            self._end.wait()

    def _copy(self, part: int) -> None:
        first, last = int(self._parts[part]), int(self._parts[part + 1])
        target, source = self._target.ctypes.data + first, self._source.ctypes.data + first
        for _ in range(COPIES):
            self._memcpy(target, source, last - first)


def gemm_contenders(
    threads: int, size: tuple[int, int, int] = GEMM_SIZE, *, prefix: str = "limit: "
) -> list[Contender]:
    """ONNX Runtime's MatMul on a constant weight, and torch's, each into memory it has."""
    m, k, n = size
    random = np.random.default_rng(0)
    x = random.standard_normal((m, k)).astype(np.float32)
    weight = random.standard_normal((k, n)).astype(np.float32)
    work = 2.0 * m * k * n
    label = f"MatMul [{m},{k}]x[{k},{n}]"
    a, b, out = torch.from_numpy(x), torch.from_numpy(weight), torch.empty(m, n)
    return [
        Contender(f"{prefix}ONNX Runtime {label}", ort_matmul(x, weight, threads), work=work),
        Contender(f"{prefix}torch {label}", lambda: torch.mm(a, b, out=out), work=work),
    ]


def ort_matmul(x: Array, weight: Array, threads: int) -> BoundRun:
    """A one-node session of x @ weight, the weight constant and so prepacked, buffers bound."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * x.ndim)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * x.ndim)],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    options = session_setting(ort, threads, native=False).options
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    shape = np.broadcast_shapes(x.shape[:-2], weight.shape[:-2])
    y = np.empty((*shape, x.shape[-2], weight.shape[-1]), np.float32)
    return BoundRun(session, {"x": x}, {"y": y})


class BoundRun:
    """A call runs ``session`` from and into these arrays' own memory; nothing is copied.

    It keeps the arrays alive; ONNX Runtime has only their addresses.
    """

    def __init__(
        self, session: ort.InferenceSession, inputs: dict[str, Array], outputs: dict[str, Array]
    ) -> None:
        self.outputs = outputs
        self._session, self._inputs = session, inputs
        self._binding = session.io_binding()
        for name, array in inputs.items():
            value = ort.OrtValue.ortvalue_from_numpy(array)
            self._binding.bind_ortvalue_input(name, value)
        for name, array in outputs.items():
            value = ort.OrtValue.ortvalue_from_numpy(array)
            self._binding.bind_ortvalue_output(name, value)

    def __call__(self) -> None:
        """Run once."""
        self._session.run_with_iobinding(self._binding)
