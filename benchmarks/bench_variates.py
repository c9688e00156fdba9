"""TiRex-2 in full size against tirex-2's ``predict`` on the CPU, alone and with covariates.

python -m benchmarks.bench_variates [alone] [together] [--quick] [--threads N] [--json F] [--check]

A random model of the published sizes: 12 blocks of D 512, a context of 2,048, a horizon of 320,
patches of 32. Contenders take turns in this one process.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from tirex2._state_dict import expand_shared_duplicates
from tirex2.model import TiRex2
from tirex2.model.types import TimeseriesType

from benchmarks.command import check, judged, read_arguments
from benchmarks.harness import (
    Bar,
    Comparison,
    Contender,
    compare,
    machine_facts,
)
from benchmarks.model_run import Result
from tests.families.tirex2_checkpoints import PUBLISHED, write_tirex2
from xlstm_export import pipeline
from xlstm_export.runtime.ort import OrtSession, cpu_threads
from xlstm_export.runtime.session import Array

TURNS = 5
FASTER = 1.5
"""Times that we are faster, at least."""


class Work(NamedTuple):
    """A call: batch entries, and variates of each kind in them."""

    what: str
    batch: int
    targets: int
    past: int
    known: int


PARTS = {
    "alone": (Work("one series", 1, 1, 0, 0), Work("16 series", 16, 1, 0, 0)),
    "together": (
        Work("a target, 2 covariates known ahead", 1, 1, 0, 2),
        Work("4 times 3 targets, 2 past covariates", 4, 3, 2, 0),
    ),
}


def upstream(source: Path) -> Any:
    """Upstream's module in float32, as its ``load_model`` makes it."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    model: Any = TiRex2(**config, device="cpu").eval()
    tensors = load_file(source / "model.safetensors")
    model.load_state_dict(expand_shared_duplicates(model, tensors))
    return model


def measure(session: OrtSession, model: Any, work: Work) -> Comparison:
    """Forecasts of the longest horizon from whole contexts."""
    info = session.manifest.forecast
    assert info is not None
    random = np.random.default_rng(0)

    def walks(count: int, length: int) -> Array:
        steps = random.standard_normal((work.batch, count, length))
        return steps.cumsum(axis=2).astype(np.float32)

    feeds: dict[str, Array] = {
        "context": walks(work.targets, info.context),
        "past_covariates": walks(work.past, info.context),
        "future_covariates": walks(work.known, info.context + info.horizon),
        "groups": np.zeros((work.batch, work.targets + work.past + work.known), np.int64),
    }
    kinds = [torch.from_numpy(feeds[name]) for name in list(feeds)[:3]]
    series = [
        TimeseriesType(kinds[0][row], *(kind[row] if kind.shape[1] else None for kind in kinds[1:]))
        for row in range(work.batch)
    ]

    def theirs() -> Array:
        found = torch.stack(model.predict(series, info.horizon))
        return np.asarray(found.permute(0, 1, 3, 2).numpy())

    def ours() -> Array:
        return session.run(feeds)[0]["quantiles"]

    wanted = theirs()
    difference = float(np.abs(ours() - wanted).max() / np.abs(wanted).max())
    if difference > 1e-3:
        raise SystemExit(f"{work.what}: the forecasts differ by {difference:.1e}")
    contenders = [Contender("ours", ours), Contender("tirex-2", theirs, difference)]
    return compare(work.what, contenders, turns=TURNS)


def main() -> None:
    """Measure, print, and say whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=cpu_threads())
    arguments = read_arguments(parser, quick="a small model, without bars", parts=tuple(PARTS))
    torch.set_num_threads(arguments.threads)
    facts = machine_facts(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="xlstm-bench-") as name:
        source, bundle = Path(name) / "source", Path(name) / "bundle"
        write_tirex2(source, **({} if arguments.quick else PUBLISHED))
        pipeline.export(source, bundle)
        session, model = OrtSession(bundle, threads=arguments.threads), upstream(source)
        works = [work for part in arguments.parts for work in PARTS[part]]
        comparisons = [measure(session, model, work) for work in works]
    bars = [Bar(f"{c.what}: tirex-2", c.ratio(0, 1).median, FASTER, "x") for c in comparisons]
    bars = judged(bars, arguments)
    Result(comparisons, bars).report(facts, arguments.json)
    check(bars, arguments)


if __name__ == "__main__":
    main()
