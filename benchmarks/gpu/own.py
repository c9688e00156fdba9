"""Our kernels as contenders, and the copy that bounds them: no torch."""

from __future__ import annotations

from benchmarks.gpu.device import Copy, captured
from benchmarks.gpu.measure import OWN, Maker, Queue, Side
from benchmarks.gpu.workloads import Arrays, Workload
from tests.cases import Array
from tests.gpu.driver import Graph, Stream
from tests.gpu.kernels import DeviceRun

STREAM, GRAPH = "stream", "graph"


def own_makers(workload: Workload, arrays: Arrays, tx: str, stream: Stream) -> list[Maker]:
    """Our kernel; a step also as a graph of layers, states from buffer to buffer."""
    makers = [Maker(OWN, STREAM, lambda: _own(workload, arrays, tx, stream))]
    if workload.is_step:
        makers.append(Maker(OWN, GRAPH, lambda: _own_graph(workload, arrays, tx, stream)))
    return makers


def copy_makers(workload: Workload, tx: str, stream: Stream) -> list[Maker]:
    """A copy that reads and writes as many bytes as the operator has operands."""
    nbytes = workload.nbytes(tx)
    name = "limit: copy of the same bytes"
    makers = [Maker(name, STREAM, lambda: Side(Copy(nbytes, stream), work=float(nbytes)))]
    if workload.is_step:
        makers.append(
            Maker(name, GRAPH, lambda: _copy_graph(nbytes, workload.layers(tx), stream))
        )
    return makers


def _own(workload: Workload, arrays: Arrays, tx: str, stream: Stream) -> Side:
    run = DeviceRun(workload.case, arrays, tx, stream=stream)
    return Side(run.launch, run.results)


def _own_graph(workload: Workload, arrays: Arrays, tx: str, stream: Stream) -> Side:
    runs = [
        DeviceRun(workload.case, arrays, tx, stream=stream) for _ in range(workload.layers(tx))
    ]
    for run in runs:  # the runtime loads a kernel when it is first launched, not in a capture
        run.launch()
    for run in runs:
        for buffer in run.outputs.values():
            buffer.poison()
    replay = _graph([run.launch for run in runs], stream)

    def results() -> dict[str, Array]:
        return runs[-1].results()

    return Side(replay, results, repeats=len(runs))


def _copy_graph(nbytes: int, layers: int, stream: Stream) -> Side:
    copies: list[Queue] = [Copy(nbytes, stream) for _ in range(layers)]
    return Side(_graph(copies, stream), repeats=layers, work=float(nbytes))


def _graph(queues: list[Queue], stream: Stream) -> Queue:
    graph: Graph
    graph, replay = captured(queues, stream)
    assert graph.nodes() >= len(queues)
    return replay
