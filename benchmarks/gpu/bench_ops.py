"""Each operator's CUDA kernel against upstream's kernels, torch and what the GPU reaches.

python -m benchmarks.gpu.bench_ops [mlstm_step] [mlstm] [slstm] [conv] [--quick] [--only TEXT]
                                   [--seconds S] [--json FILE]

All contenders of a table take turns in this one process, on one stream, on the same inputs, and
their outputs and states are compared with float64 before anything is timed. Needs an NVIDIA GPU,
libxlstm_cuda_c.so, numpy, ml_dtypes and torch; every other package is a peer where it is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from benchmarks.contender import Maker, Side
from benchmarks.gpu.device import Timer, clocks_now, device_facts
from benchmarks.gpu.measure import OWN, Effort, Table, lines_of, measure
from benchmarks.gpu.own import GRAPH, STREAM, copy_makers, own_makers
from benchmarks.gpu.workloads import Arrays, Workload, workloads
from tests.gpu.driver import DRIVER_VARIABLE, Stream
from tests.gpu.kernels import why_not

if TYPE_CHECKING:
    from benchmarks.gpu.place import Place

PACKAGES = ("numpy", "torch", "triton", "mlstm_kernels", "xlstm", "flashrnn")
PARTS = ("mlstm_step", "mlstm", "slstm", "conv")
SECONDS, QUICK_SECONDS = 330, 45
COMPILE_SECONDS = 60
"""A peer that compiles for each shape may take so long; then it is left out."""
NOT_COMPILED = "not asked: it would compile for this size"
COPIES = 20
"""About how often a workload's operands are in memory, contenders and temporaries together."""


LEGEND = (
    "us: median of the turns' medians per call, the cache cold; graph: per layer of a replayed "
    "graph.\nratio: its time over ours in the same mode; difference: from float64, of the worst "
    "output."
)


@dataclass
class Bench:
    """What workloads share. ``device`` is torch's; None: torch has none, for ``reason``."""

    stream: Stream
    timer: Timer
    effort: Effort
    deadline: float
    device: str | None
    reason: str = ""
    compiles: bool = True
    matmul_size: int = 4096

    def table(self, workload: Workload, tx: str) -> Table:
        """Every contender of one workload in one type, measured."""
        from benchmarks.gpu.place import Place

        arrays = workload.arrays(tx)
        place = Place(self.device or "cpu", self.stream)
        exact = place.exact(workload, arrays)
        makers = own_makers(workload, arrays, tx, self.stream)
        if self.device:
            makers += map(self._within_time, self._peers(workload, arrays, tx, place))
        else:
            makers.append(Maker("torch and upstream", partial(_fail, self.reason), STREAM))
        makers += copy_makers(workload, tx, self.stream)
        work = workload.flop or float(workload.nbytes(tx))
        rows = measure(makers, exact, tx, self.timer, self.effort, work)
        unit = "FLOP" if workload.flop else "B"
        return Table(workload.title, tx, workload.case.size["T"], unit, rows)

    def _peers(self, workload: Workload, arrays: Arrays, tx: str, place: Place) -> list[Maker]:
        from benchmarks.gpu.peers import Peer, peers

        tensors = place.tensors(arrays)

        def eager(peer: Peer) -> Side:
            left = int(min(COMPILE_SECONDS, self.deadline - time.monotonic() + 1))
            with place.current(), time_limit(left if peer.compiles else 0):
                function = peer.build(tensors)
                side = place.eager(function, workload)
                side.call()
                return side

        def graph(peer: Peer) -> Side:
            with place.current():
                functions = [
                    peer.build({name: x.clone() for name, x in tensors.items()})
                    for _ in range(workload.layers(tx))
                ]
            return place.graph(functions, workload)

        makers = []
        for peer in peers(workload, tx, place.device):
            if peer.compiles and not (self.compiles and workload.compiled):
                makers.append(Maker(peer.name, partial(_fail, NOT_COMPILED), STREAM))
                continue
            makers.append(Maker(peer.name, partial(eager, peer), STREAM))
            if workload.is_step and not peer.compiles:
                build = partial(_fail, peer.no_graph) if peer.no_graph else partial(graph, peer)
                makers.append(Maker(peer.name, build, GRAPH))
        if workload.flop is not None:
            name = f"limit: torch.matmul, {self.matmul_size} cubed"
            makers.append(Maker(name, lambda: place.matmul(tx, self.matmul_size), STREAM))
        return makers

    def _within_time(self, maker: Maker) -> Maker:
        def build() -> Side:
            if time.monotonic() > self.deadline:
                raise TimeoutError("the time of the whole run is up: --seconds")
            return maker.build()

        return dataclasses.replace(maker, build=build)


def _fail(reason: str) -> Side:
    raise RuntimeError(reason)


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """TimeoutError in the body after ``seconds``; 0 means no limit. Main thread only."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not ready after {seconds} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again where the body swallows the error
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(
    chosen: Sequence[tuple[Workload, str]], bench: Bench, report: Callable[[Table], None]
) -> list[Table]:
    """A table for each workload and type; stops where the time is up."""
    from benchmarks.gpu.place import release

    tables = []
    for workload, tx in chosen:
        if time.monotonic() > bench.deadline:
            break
        tables.append(bench.table(workload, tx))
        release(bench.device)
        report(tables[-1])
    return tables


def choose(parts: Sequence[str], only: str, quick: bool) -> list[tuple[Workload, str]]:
    """Workloads and types in the order they are measured; quick: few, in one type each."""
    return [
        (workload, tx)
        for workload in workloads()
        if workload.part in parts and (workload.quick or not quick)
        for tx in (("bfloat16",) if quick else workload.dtypes)
        if only in f"{workload.title}, {tx}"
    ]


def machine() -> dict[str, Any]:
    """What a reader needs to judge the numbers."""
    other = os.environ.get(DRIVER_VARIABLE)
    note = {"note": f"{DRIVER_VARIABLE} is set: no times of a GPU"} if other else {}
    return {**note, **device_facts(), "clocks": clocks_now(), "system": platform.platform(),
            "packages": {name: _version(name) for name in PACKAGES}}  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def own_failures(tables: Sequence[Table]) -> list[str]:
    """Where our kernel did not run or was wrong."""
    return [
        f"{table.title}, {table.dtype}, {row.mode}: {row.reason}"
        for table in tables
        for row in table.rows
        if row.name.startswith(OWN) and row.reason
    ]


def _left_out(
    asked: Sequence[tuple[Workload, str]],
    chosen: Sequence[tuple[Workload, str]],
    tables: Sequence[Table],
) -> list[str]:
    """A line for each table there is none of: the GPU's memory is too small, or time was up."""
    large = [f"too large for the GPU: {w.title}, {tx}" for w, tx in asked if (w, tx) not in chosen]
    late = [f"time was up (--seconds): {w.title}, {tx}" for w, tx in chosen[len(tables) :]]
    return large + late


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], prog="python -m benchmarks.gpu.bench_ops"
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--quick", action="store_true", help="few sizes, bfloat16, few turns")
    parser.add_argument("--only", default="", metavar="TEXT", help='as in "B=1, T=1, float32"')
    parser.add_argument("--seconds", type=int, help=f"for all; default {SECONDS}, quick "
                        f"{QUICK_SECONDS}")  # fmt: skip
    parser.add_argument("--json", type=Path, help="file to write everything to")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return arguments


def main() -> None:
    """Measure, print each table as it is done; exit 1 where nothing can run or ours is wrong."""
    arguments = _arguments()
    began = time.monotonic()
    if reason := why_not():
        sys.exit(f"nothing to measure: {reason}")
    try:
        from benchmarks.gpu.place import cuda_reason
    except ModuleNotFoundError as error:
        sys.exit(f"nothing to compare with: {error}: install torch")
    facts, reason = machine(), cuda_reason()
    asked = choose(arguments.parts or PARTS, arguments.only, arguments.quick)
    chosen = [(w, tx) for w, tx in asked if COPIES * w.nbytes(tx) <= facts["memory_bytes"]]
    if not chosen:
        sys.exit("nothing to measure: --only, the parts and the GPU's memory leave no size")
    for name, value in facts.items():
        print(f"{name}: {value}")
    print(LEGEND)
    stream = Stream()
    limit = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    effort = Effort(turns=3, seconds=0.05) if arguments.quick else Effort()
    bench = Bench(
        stream, Timer(stream), effort, began + limit, None if reason else "cuda", reason or "",
        compiles=not arguments.quick,
    )  # fmt: skip
    tables = run(chosen, bench, lambda table: print("\n".join(lines_of(table)), flush=True))
    left_out = _left_out(asked, chosen, tables)
    print("\n".join(left_out))
    facts["clocks_after"] = clocks_now()
    print(f"clocks after: {facts['clocks_after']}; {time.monotonic() - began:.0f} s in all")
    if arguments.json:
        content = {"machine": facts, "left_out": left_out,
                   "tables": [dataclasses.asdict(table) for table in tables]}  # fmt: skip
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    failures = own_failures(tables)
    if failures:
        sys.exit("our kernels failed:\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
