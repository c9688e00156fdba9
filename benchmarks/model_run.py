"""What the parts of the model benchmark share: how much to do, what was found, how it is shown."""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.command import check, judged, read_arguments
from benchmarks.harness import (
    Bar,
    Comparison,
    machine_facts,
    print_bars,
    print_comparisons,
    print_facts,
    write_json,
)
from benchmarks.profile_model import Profile, print_profile, profile
from xlstm_export import pipeline
from xlstm_export.checkpoint.source import Source
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.ops.catalog import DOMAIN
from xlstm_export.runtime.ort import BODIES, OrtSession, cpu_threads

RECURRENT_SHARE = 10.0
"""Per cent of a model's time that its recurrences may take."""


@dataclass(frozen=True)
class Plan:
    """How much to do, and where."""

    work: Path
    threads: int
    quick: bool

    def turns(self, full: int) -> int:
        """Turns of a comparison: ``full``, or three when quick."""
        return 3 if self.quick else full


@dataclass
class Result:
    """What the parts add to the report."""

    comparisons: list[Comparison] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    profiles: list[Profile] = field(default_factory=list)

    def faster(self, comparison: Comparison, own: int, peer: int, least: float) -> None:
        """Bar: contender ``own`` is ``least`` times as fast as ``peer``, turn by turn."""
        a, b = comparison.timings[own], comparison.timings[peer]
        what = f"{comparison.what}: {a.name} over {b.name}"
        self.bars.append(Bar(what, comparison.ratio(own, peer).median, least, "x"))

    def reaches(self, comparison: Comparison, own: int, limit: int, per_cent: float) -> None:
        """Bar: contender ``own`` works at this part of the rate of ``limit``."""
        a, b = comparison.timings[own], comparison.timings[limit]
        what = f"{comparison.what}: {a.name}, rate over that of {b.name.removeprefix('limit: ')}"
        share = 100 * comparison.relative_rate(own, limit)
        self.bars.append(Bar(what, share, per_cent, "%"))

    def profiled(self, bundle: Path, plan: Plan, steps: int) -> None:
        """Profile a call over ``steps`` with native kernels; bar on the recurrences' share."""
        runs = 5 if plan.quick else 15 if steps > 1 else 50
        measured = profile(bundle, steps, threads=plan.threads, runs=runs)
        self.profiles.append(measured)
        share = 100 * measured.recurrent_share
        what = f"{measured.what}: recurrences' share of the time"
        self.bars.append(Bar(what, share, RECURRENT_SHARE, "%", at_least=False))

    def report(self, facts: dict[str, Any], path: Path | None) -> None:
        """Print everything, and write it to ``path`` where one is given."""
        console = Console()
        print_facts(facts, console)
        if self.comparisons:
            print_comparisons(self.comparisons, console)
        for measured in self.profiles:
            print_profile(measured, console)
        for name, number in self.numbers.items():
            console.print(f"{name}: {number:.1f}", markup=False)
        print_bars(self.bars, console)
        if path:
            profiles = [_by_operator(measured) for measured in self.profiles]
            write_json(path, {"machine": facts, **vars(self), "profiles": profiles})


def _by_operator(measured: Profile) -> dict[str, Any]:
    seconds: defaultdict[str, float] = defaultdict(float)
    for node in measured.nodes:
        seconds[node.op_type] += node.seconds
    return {
        "what": measured.what,
        "operators": measured.operators,
        "recurrent_share": measured.recurrent_share,
        "seconds": dict(sorted(seconds.items(), key=lambda row: -row[1])),
    }


def export(source: Source, plan: Plan) -> Path:
    """The fp32 bundle of ``source``."""
    bundle = plan.work / f"{source.path.name}.bundle"
    pipeline.export_source(source, bundle, LoweringOptions(), overwrite=True)
    return bundle


def open_native(bundle: Path, plan: Plan) -> OrtSession:
    """The bundle with native kernels. Raises SystemExit where they are not built."""
    session = OrtSession(bundle, threads=plan.threads)
    if session.describe()[DOMAIN] == BODIES:
        raise SystemExit("the native kernels are not built: make wheel")
    return session


def open_bodies(bundle: Path, plan: Plan) -> OrtSession:
    """The bundle in stock ONNX Runtime."""
    return OrtSession(bundle, threads=plan.threads, native=False)


def measure_parts(
    document: str, parts: Collection[str], bench: Callable[[str, Plan, Result], None], *, quick: str
) -> None:
    """A benchmark's ``main``: ``bench`` each part that is asked for, print, and judge the bars.

    ``document`` is the module's own, ``quick`` says what --quick does.
    """
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    parser.add_argument("--threads", type=int, default=cpu_threads(), help="of all sides")
    parser.add_argument("--work", type=Path, help="keep checkpoints and bundles in this folder")
    arguments = read_arguments(parser, quick=quick, parts=parts)
    torch.set_num_threads(arguments.threads)
    facts, result = machine_facts(arguments.threads), Result()
    with tempfile.TemporaryDirectory(prefix="xlstm-bench-") as folder:
        plan = Plan(arguments.work or Path(folder), arguments.threads, arguments.quick)
        for part in arguments.parts:
            bench(part, plan, result)
    result.bars = judged(result.bars, arguments)
    result.report(facts, arguments.json)
    check(result.bars, arguments)
