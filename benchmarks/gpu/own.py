"""Our kernels as contenders, and the copy that bounds them: no torch."""

from __future__ import annotations

from benchmarks.contender import Maker, Side
from benchmarks.gpu.device import Copy, Replay
from benchmarks.gpu.measure import OWN
from benchmarks.gpu.workloads import Arrays, Workload
from tests.gpu.driver import Stream
from tests.gpu.kernels import DeviceRun

STREAM, GRAPH = "stream", "graph"


def own_makers(workload: Workload, arrays: Arrays, tx: str, stream: Stream) -> list[Maker]:
    """Our kernel; a step also as a graph of layers, states from buffer to buffer."""
    makers = [Maker(OWN, lambda: _own(workload, arrays, tx, stream), STREAM)]
    if workload.is_step:
        makers.append(Maker(OWN, lambda: _own_graph(workload, arrays, tx, stream), GRAPH))
    return makers


def copy_makers(workload: Workload, tx: str, stream: Stream) -> list[Maker]:
    """A copy that reads and writes as many bytes as the operator has operands."""
    nbytes = workload.nbytes(tx)
    name = "limit: copy of the same bytes"
    makers = [Maker(name, lambda: Side(Copy(nbytes, stream), work=float(nbytes)), STREAM)]
    if workload.is_step:
        makers.append(Maker(name, lambda: _copy_graph(nbytes, workload.layers(tx), stream), GRAPH))
    return makers


def _own(workload: Workload, arrays: Arrays, tx: str, stream: Stream) -> Side:
    run = DeviceRun(workload.case, arrays, tx, stream=stream)
    return Side(run.launch, run.results)


def _own_graph(workload: Workload, arrays: Arrays, tx: str, stream: Stream) -> Side:
    runs = [DeviceRun(workload.case, arrays, tx, stream=stream) for _ in range(workload.layers(tx))]
    for run in runs:  # the runtime loads a kernel when it is first launched, not in a capture
        run.launch()
    for run in runs:
        for buffer in run.outputs.values():
            buffer.poison()
    replay = Replay([run.launch for run in runs], stream)
    assert replay.graph.nodes() >= len(runs)
    return Side(replay, runs[-1].results, repeats=len(runs))


def _copy_graph(nbytes: int, layers: int, stream: Stream) -> Side:
    copies = [Copy(nbytes, stream) for _ in range(layers)]
    for copy in copies:
        copy()
    return Side(Replay(copies, stream), repeats=layers, work=float(nbytes))
