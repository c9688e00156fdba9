"""TiRex in full size against tirex-ts on the CPU, and its carried state against beginning again.

python -m benchmarks.bench_forecast [forward] [rollout] [--quick] [--threads N] [--batch N,...]
                                    [--no-compile] [--json F] [--check]

A random model: 12 blocks of D 512, 4 heads, patches of 32, a context of 2,048. Contenders take
turns in this one process; ours runs faithful numerics, as exported by default.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tirex.models.slstm.cell import sLSTMCellTorch
from tirex.models.tirex import TiRexZero

from benchmarks.command import check, judged, read_arguments
from benchmarks.harness import (
    Bar,
    Comparison,
    Contender,
    compare,
    machine_facts,
)
from benchmarks.limits import GEMM_SIZE, ort_matmul
from benchmarks.model_run import Result
from tests.families.tirex_checkpoints import FULL, SMALL, make_tirex
from xlstm_export import pipeline
from xlstm_export.generation.forecast import forecast_series
from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.model.layers.residual_mlp import ResidualMLP
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.spec import ModelSpec
from xlstm_export.runtime.ort import OrtSession, cpu_threads
from xlstm_export.runtime.session import Array

PARTS = ("forward", "rollout")
TURNS = 5
HORIZON = 256


def flop(spec: ModelSpec, tokens: int) -> float:
    """FLOP of one series of ``tokens``: all matrix products, those of the recurrence included."""
    each = sum(16.0 * s.model_size * s.head_size for s in spec.layers_of(SLSTM))
    each += sum(6.0 * f.model_size * f.hidden_size for f in spec.layers_of(FeedForward))
    first, head = (
        2.0 * (m.in_size * m.hidden_size + m.hidden_size * m.out_size + m.in_size * m.out_size)
        for m in spec.layers_of(ResidualMLP)
    )
    return tokens * (each + first) + head


def upstream_call(model: TiRexZero, context: Array) -> Contender:
    """tirex-ts' forecast of one patch."""
    series = torch.from_numpy(context)
    return Contender("tirex-ts, torch", lambda: model._forecast_quantiles(series)[0].numpy())


def compiled_call(model: TiRexZero, context: Array) -> Contender:
    """The same with its cells compiled, as its ``load_model(compile=True)`` does."""
    compiled = torch.compile(sLSTMCellTorch.slstm_forward)
    plain = [block.slstm_layer.slstm_cell for block in model.blocks]
    series = torch.from_numpy(context)

    def call() -> Array:
        for cell in plain:
            cell._impl_forward_torch = compiled
        try:
            result: Array = model._forecast_quantiles(series)[0].numpy()
            return result
        finally:
            for cell in plain:
                cell._impl_forward_torch = sLSTMCellTorch.slstm_forward

    return Contender("tirex-ts, torch.compile", call)


def forward(
    session: OrtSession, spec: ModelSpec, model: TiRexZero, batch: int, threads: int,
    with_compile: bool,
) -> tuple[Comparison, list[Bar]]:  # fmt: skip
    """One forecast of ``batch`` series of a whole context."""
    info = session.manifest.forecast
    assert info is not None
    context = np.random.default_rng(batch).standard_normal((batch, info.context)).cumsum(1)
    context = context.astype(np.float32)
    work = batch * flop(spec, info.context // info.patch)
    ours = Contender("ours", lambda: session.run({"context": context})[0]["quantiles"], work=work)
    peers = [upstream_call(model, context)]
    if with_compile:
        peers.append(compiled_call(model, context))
    m, k, n = GEMM_SIZE
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n)))
    limit = Contender("limit: MatMul", ort_matmul(a, b, threads), work=2.0 * m * k * n)
    found = compare(f"forward, batch {batch}", [ours, *peers, limit], turns=TURNS, unit="GFLOP/s")
    count = len(found.timings)
    bars = [
        Bar(f"batch {batch}: tirex-ts", found.ratio(0, 1).median, 10, "x"),
        Bar(f"batch {batch}: MatMul's rate", 100 * found.relative_rate(0, count - 1), 60, "%"),
    ]
    if with_compile:
        bars.append(Bar(f"batch {batch}: torch.compile", found.ratio(0, 2).median, 1.8, "x"))
    return found, bars


def rollout(session: OrtSession) -> tuple[Comparison, list[Bar]]:
    """A long horizon on the carried state, and by beginning again for every patch."""
    info = session.manifest.forecast
    assert info is not None
    series = np.random.default_rng(7).standard_normal((1, info.context)).cumsum(1)

    def by(how: Any) -> Contender:
        return Contender(how, lambda: forecast_series(session, series, HORIZON, rollout=how))

    found = compare(f"{HORIZON} steps", [by("carried"), by("rerun")], turns=4 * TURNS)
    ratio = found.ratio(0, 1).median
    return found, [Bar(f"{HORIZON} steps carried, against begun again", ratio, 6, "x")]


def main() -> None:
    """Measure, print, and say whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=cpu_threads())
    parser.add_argument("--no-compile", action="store_true", help="its first call takes a minute")
    parser.add_argument("--batch", default="1,16", help="series in a forward, several with commas")
    arguments = read_arguments(parser, quick="a small model, without bars", parts=PARTS)
    torch.set_num_threads(arguments.threads)
    facts = machine_facts(arguments.threads)
    comparisons: list[Comparison] = []
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory(prefix="xlstm-bench-") as name:
        made = make_tirex(Path(name) / "source", **(SMALL if arguments.quick else FULL))
        spec = pipeline.read_checkpoint(made.source).spec
        pipeline.export(made.source.path, Path(name) / "bundle")
        session = OrtSession(Path(name) / "bundle", threads=arguments.threads)
        if "forward" in arguments.parts:
            for batch in map(int, arguments.batch.split(",")):
                found, new = forward(
                    session, spec, made.model, batch, arguments.threads, not arguments.no_compile
                )
                comparisons.append(found)
                bars += new
        if "rollout" in arguments.parts:
            found, new = rollout(session)
            comparisons.append(found)
            bars += new
    bars = judged(bars, arguments)
    Result(comparisons, bars).report(facts, arguments.json)
    check(bars, arguments)


if __name__ == "__main__":
    main()
