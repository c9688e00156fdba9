"""Our kernels as contenders, and the copy that bounds them: no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.contender import Maker, Side
from benchmarks.gpu.device import Copy, Replay
from benchmarks.gpu.measure import OWN
from benchmarks.gpu.workloads import Arrays, Workload
from tests.gpu.driver import Stream
from tests.gpu.kernels import PLAIN, DeviceRun, forced, variant_of

STREAM, GRAPH = "stream", "graph"


def own_makers(workload: Workload, arrays: Arrays, tx: str, stream: Stream) -> list[Maker]:
    """Our kernel, and the plain one; a step also as a graph of layers, states buffer to buffer."""
    variant = variant_of(workload.case, tx)
    makers = []
    for name in dict.fromkeys((variant, PLAIN)):
        runs = _Runs(workload, arrays, tx, stream, name)
        makers.append(Maker(f"{OWN}, {name}", runs.eager, STREAM))
        if workload.is_step:
            makers.append(Maker(f"{OWN}, {name}", runs.graph, GRAPH))
    return makers


def copy_makers(workload: Workload, tx: str, stream: Stream) -> list[Maker]:
    """A copy that reads and writes as many bytes as the operator has operands."""
    nbytes = workload.nbytes(tx)
    name = "limit: copy of the same bytes"
    makers = [Maker(name, lambda: Side(Copy(nbytes, stream), work=float(nbytes)), STREAM)]
    if workload.is_step:
        makers.append(Maker(name, lambda: _copy_graph(nbytes, workload.layers(tx), stream), GRAPH))
    return makers


@dataclass(frozen=True)
class _Runs:
    """One variant's sides."""

    workload: Workload
    arrays: Arrays
    tx: str
    stream: Stream
    variant: str

    def eager(self) -> Side:
        run = self._run()
        return Side(self._forced(run.launch), run.results)

    def graph(self) -> Side:
        runs = [self._run() for _ in range(self.workload.layers(self.tx))]
        for run in runs:
            self._forced(run.launch)()
        for run in runs:
            for buffer in run.outputs.values():
                buffer.poison()
        replay = Replay([self._forced(run.launch) for run in runs], self.stream)
        assert replay.graph.nodes() >= len(runs)
        return Side(replay, runs[-1].results, repeats=len(runs))

    def _run(self) -> DeviceRun:
        return DeviceRun(self.workload.case, self.arrays, self.tx, stream=self.stream)

    def _forced(self, launch: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            with forced(self.workload.case.op, self.variant):
                launch()

        return call


def _copy_graph(nbytes: int, layers: int, stream: Stream) -> Side:
    copies = [Copy(nbytes, stream) for _ in range(layers)]
    for copy in copies:
        copy()
    return Side(Replay(copies, stream), repeats=layers, work=float(nbytes))
