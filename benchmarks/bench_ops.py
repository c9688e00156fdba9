"""Each operator's native kernel against its own function body, torch, and what the machine reaches.

python -m benchmarks.bench_ops [mlstm] [mlstm_large] [mlstm_step] [slstm] [conv]
                               [--quick] [--threads N] [--json F] [--check]

All contenders of a table take turns in this one process, with the same threads, on the same
inputs, and their outputs and states are compared before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from rich.console import Console

from benchmarks.command import check, judged, read_arguments
from benchmarks.contender import Maker
from benchmarks.harness import (
    Bar,
    Comparison,
    Contender,
    compare,
    machine_facts,
    print_bars,
    print_comparisons,
    print_facts,
    write_json,
)
from benchmarks.limits import copy_contenders, gemm_contenders
from benchmarks.op_contenders import c_side, contenders, ort_side
from benchmarks.op_peers import torch_makers
from tests.cases import OpCase
from tests.plugins.kernels import Pool, isa
from xlstm_export.runtime.ort import cpu_threads

NATIVE = "ONNX Runtime, native kernel"
BODY = "ONNX Runtime, our function body"
CHUNKWISE = "torch, mlstm_kernels native chunkwise"
VANILLA = "xlstm, vanilla sLSTM"
LIMIT = "limit: "


@dataclass
class Bench:
    """What runs share, and what they found."""

    pool: Pool
    quick: bool
    comparisons: list[Comparison] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)

    def compare(
        self,
        title: str,
        case: OpCase,
        *,
        calls: int,
        work: float | None = None,
        unit: str = "",
        limits: list[Contender] | None = None,
        in_place: bool = False,
        peers: bool = True,
    ) -> Comparison:
        """Our three ways and torch's to compute ``case``, and the machine's ``limits``."""
        pool, threads = self.pool, self.pool.threads
        makers = [
            Maker(f"native kernel ({isa()[1]}), C interface", lambda: c_side(case, pool, in_place)),
            Maker(NATIVE, lambda: ort_side(case, threads, native=True, in_place=in_place)),
        ]
        if peers:
            makers.append(Maker(BODY, lambda: ort_side(case, threads, native=False)))
            makers += torch_makers(case, compiled=not self.quick)
        able, missing = contenders(makers, work)
        turns = 3 if self.quick else 15
        comparison = compare(
            title,
            [*able, *(limits or [])],
            turns=turns,
            calls=3 if self.quick else calls,
            unit=unit,
            missing=missing,
        )
        self.comparisons.append(comparison)
        return comparison

    def faster_than(self, comparison: Comparison, peer: str, least: float) -> None:
        """Bar: our kernel through the C interface is ``least`` times as fast as ``peer``."""
        [index] = [i for i, t in enumerate(comparison.timings) if t.name == peer]
        ratio = comparison.ratio(0, index).median
        self.bars.append(Bar(f"{comparison.what}, speed over {peer}", ratio, least, "x"))

    def of_limit(self, comparison: Comparison, what: str, least: float) -> None:
        """Bar: our kernel does ``least`` of the fastest limit's work per second."""
        timings = comparison.timings
        limits = [i for i, t in enumerate(timings) if t.name.startswith(LIMIT)]
        best = max(limits, key=lambda i: timings[i].rate or 0.0)
        share = comparison.relative_rate(0, best)
        self.bars.append(Bar(f"{comparison.what}, share of {what}", 100 * share, 100 * least, "%"))


def _case(op: str, sizes: dict[str, int], *, state: str = "random", activation: int = -1) -> OpCase:
    attributes = (("activation", activation),) if activation >= 0 else ()
    return OpCase(op, tuple(sizes.items()), attributes, state=state)  # type: ignore[arg-type]


def _mlstm_case(T: int, N: int, K: int, V: int) -> tuple[OpCase, float]:
    """The case, and its FLOP as the project counts them: for chunks of 64, whatever is computed."""
    case = _case("XlstmMLSTM", {"B": 1, "T": T, "N": N, "K": K, "V": V})
    return case, float(T * N * (4 * K * V + 64 * (K + V)))


def _title(case: OpCase) -> str:
    size = case.size
    if case.op == "XlstmSLSTM":
        return f"sLSTM {size['N']}x{size['H']}, T={size['T']}"
    return f"mLSTM {size['N']}x{size['K']}/{size['V']}, T={size['T']}"


def bench_mlstm(bench: Bench) -> None:
    """Small heads, a long sequence."""
    case, flop = _mlstm_case(256 if bench.quick else 2048, 4, 64, 128)
    comparison = bench.compare(_title(case), case, calls=3, work=flop, unit="GFLOP/s")
    bench.faster_than(comparison, BODY, 2.5)
    bench.faster_than(comparison, CHUNKWISE, 4.0)


def bench_mlstm_large(bench: Bench) -> None:
    """Large heads, where the kernel is a matrix product: judged by the machine's own."""
    case, flop = _mlstm_case(128 if bench.quick else 512, 8, 256, 512)
    threads = bench.pool.threads
    limits = gemm_contenders(threads)
    comparison = bench.compare(
        _title(case), case, calls=3, work=flop, unit="GFLOP/s", limits=limits
    )
    bench.faster_than(comparison, CHUNKWISE, 2.5)
    bench.of_limit(comparison, "MatMul's rate", 0.6)
    for m, calls in ((512, 3), (1, 100)):
        products = gemm_contenders(threads, (m, 2048, 2048), prefix="")
        bench.comparisons.append(
            compare(f"MatMul of {m} rows", products, turns=5, calls=calls, unit="GFLOP/s")
        )


def bench_mlstm_step(bench: Bench) -> None:
    """One step with large heads: reading and writing the state, 4 MiB, is all there is."""
    case, _ = _mlstm_case(1, 8, 256, 512)
    state_bytes = 4 * 8 * 256 * 512
    for in_place in (False, True):
        where = "in place" if in_place else "from buffer to buffer"
        comparison = bench.compare(
            f"{_title(case)}, state {where}", case, calls=300, work=2.0 * state_bytes, unit="GB/s",
            limits=copy_contenders(state_bytes, bench.pool.threads, in_place=in_place),
            in_place=in_place, peers=not in_place,
        )  # fmt: skip
        if not in_place:  # in place nothing is copied: shown beside what does as little
            bench.of_limit(comparison, "copy bandwidth", 0.7)


def bench_slstm(bench: Bench) -> None:
    """Model size 256 in four heads."""
    T = 64 if bench.quick else 512
    case = _case("XlstmSLSTM", {"B": 1, "T": T, "N": 4, "H": 64}, state="zero")
    comparison = bench.compare(_title(case), case, calls=3)
    bench.faster_than(comparison, BODY, 12.0)
    bench.faster_than(comparison, VANILLA, 50.0)


def bench_conv(bench: Bench) -> None:
    """The causal convolution; bytes are those of x and y. With SiLU it computes, not copies."""
    for activation, name in ((0, "convolution [1,2048,1024], W=4"), (1, "the same with SiLU")):
        sizes = {"B": 1, "T": 2048, "D": 1024, "W": 4}
        case = _case("XlstmCausalConv1d", sizes, activation=activation)
        nbytes = 4 * 2048 * 1024
        comparison = bench.compare(
            name, case, calls=50, work=2.0 * nbytes, unit="GB/s",
            limits=copy_contenders(nbytes, bench.pool.threads),
        )  # fmt: skip
        if activation == 0:
            bench.of_limit(comparison, "copy bandwidth", 0.6)


PARTS: dict[str, Callable[[Bench], None]] = {
    "mlstm": bench_mlstm,
    "mlstm_large": bench_mlstm_large,
    "mlstm_step": bench_mlstm_step,
    "slstm": bench_slstm,
    "conv": bench_conv,
}


def main() -> None:
    """Measure the chosen operators, print, and say whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=cpu_threads(), help="of all contenders")
    quick = "short sequences, few turns, no torch.compile"
    arguments = read_arguments(parser, quick=quick, parts=PARTS)
    torch.set_num_threads(arguments.threads)
    facts = machine_facts(arguments.threads)
    bench = Bench(Pool(arguments.threads), arguments.quick)
    for part in arguments.parts:
        PARTS[part](bench)
    bars = judged(bench.bars, arguments)
    console = Console()
    print_facts(facts, console)
    print_comparisons(bench.comparisons, console)
    print_bars(bars, console)
    if arguments.json:
        found = {"comparisons": bench.comparisons, "bars": bars}
        write_json(arguments.json, {"machine": facts, **found})
    check(bars, arguments)


if __name__ == "__main__":
    main()
