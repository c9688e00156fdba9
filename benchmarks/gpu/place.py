"""torch beside our kernels: the same inputs, the same stream, graphs, and the float64 values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.contender import Side
from benchmarks.gpu.device import Queue
from benchmarks.gpu.workloads import Arrays, Workload
from tests.cases import NUMPY_DTYPES, Array
from tests.gpu.driver import Stream
from xlstm_export.ops import reference
from xlstm_export.ops.catalog import CATALOG

Function = Callable[[], Sequence[Tensor]]
"""Gives every output of the operator, in the catalogue's order and shapes."""


class Place:
    """A torch device ("cuda", or "cpu" to try the adapters), and the stream work is queued on."""

    def __init__(self, device: str, stream: Stream) -> None:
        self.device = device
        self._stream: Any = None
        if device == "cuda":
            handle = int(stream.handle.value or 0)
            self._stream = torch.cuda.ExternalStream(handle)  # type: ignore[no-untyped-call]

    @contextmanager
    def current(self) -> Iterator[None]:
        """Torch queues on the stream and keeps no gradients."""
        with torch.no_grad(), torch.cuda.stream(self._stream):
            yield

    def tensors(self, arrays: Mapping[str, Array]) -> dict[str, Tensor]:
        """Copies of ``arrays`` on the device."""
        with self.current():
            return {name: _tensor(array).to(self.device) for name, array in arrays.items()}

    def eager(self, function: Function, workload: Workload) -> Side:
        """``function`` called from Python each time."""
        last: list[Sequence[Tensor]] = []

        def queue() -> None:
            last.clear()
            with self.current():
                last.append(function())

        return Side(queue, lambda: self._results(last[0], workload))

    def graph(self, functions: Sequence[Function], workload: Workload) -> Side:
        """All ``functions`` in one graph, their outputs apart. Raises RuntimeError off CUDA."""
        if self.device != "cuda":
            raise RuntimeError("torch captures graphs on CUDA only")
        with self.current():
            for function in functions:
                function()
        graph = torch.cuda.CUDAGraph()
        with (
            torch.no_grad(),
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            kept = [function() for function in functions]

        def replay() -> None:
            with self.current():
                graph.replay()

        return Side(replay, lambda: self._results(kept[-1], workload), repeats=len(functions))

    def matmul(self, dtype: str, size: int) -> Side:
        """The limit of matrix products: [size,size] x [size,size]; FP32 without TF32."""
        with self.current():
            a, b = (torch.randn(size, size, device=self.device).to(getattr(torch, dtype))
                    for _ in range(2))  # fmt: skip
            c = torch.empty_like(a)
        return Side(self.in_place(lambda: torch.matmul(a, b, out=c)), work=2.0 * size**3)

    def in_place(self, function: Callable[[], object]) -> Queue:
        """``function`` under ``current``."""

        def queue() -> None:
            with self.current():
                function()

        return queue

    def exact(self, workload: Workload, arrays: Arrays) -> dict[str, Array]:
        """Every output in float64 by our reference, of the rows that differ."""
        wide = {
            name: tensor if name == "lengths" else tensor.to(torch.float64)
            for name, tensor in self.tensors(workload.compared(arrays)).items()
        }
        with self.current():
            results = own_reference(workload, wide, self.device)()
        names = [spec.name for spec in CATALOG[workload.case.op].outputs]
        return {name: r.cpu().numpy() for name, r in zip(names, results, strict=True)}

    def _results(self, outputs: Sequence[Tensor], workload: Workload) -> dict[str, Array]:
        """The first and the last rows that are compared, in float64."""
        rows = workload.rows
        specs = CATALOG[workload.case.op].outputs
        return {
            spec.name: np.concatenate(
                [part.to(torch.float64).cpu().numpy() for part in (t[:rows], t[-rows:])]
            ).reshape(-1, *workload.case.shape(spec.dims)[1:])
            for spec, t in zip(specs, outputs, strict=True)
        }


def own_reference(workload: Workload, x: Mapping[str, Tensor], device: str) -> Function:
    """Our torch definition; it makes masks on the device that is the default one."""
    op, is_step = workload.case.op, workload.is_step
    mlstm = reference.mlstm_recurrent if is_step else reference.mlstm_chunkwise
    functions: dict[str, Callable[..., Sequence[Tensor]]] = {
        "XlstmMLSTM": mlstm,
        "XlstmSLSTM": reference.slstm,
        "XlstmCausalConv1d": reference.causal_conv1d,
    }
    attributes = workload.case.attribute_values()

    def run() -> Sequence[Tensor]:
        with torch.device(device):
            return functions[op](**x, **attributes)

    return run


def release(device: str | None) -> None:
    """Give back what torch keeps for later: our kernels' memory is not torch's."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def cuda_reason() -> str | None:
    """Why torch's side cannot run on a GPU here; None where it can."""
    if torch.cuda.is_available():
        return None
    return f"torch {torch.__version__} finds no GPU: install one built for CUDA"


def _tensor(array: Array) -> Tensor:
    array = np.ascontiguousarray(array)
    if array.dtype == NUMPY_DTYPES["bfloat16"]:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
