"""Validation as a whole and layer by layer: time, memory, and a fault that is found.

python -m benchmarks.bench_validate [125m] [7b] [--dtypes fp16 bf16] [--blocks 32] [--memory 8GiB]

7b has the shape of xLSTM-7B and takes 28 GB of disk: a checkpoint, and one bundle at a time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.checkpoint_7b import BLOCKS, xlstm_7b
from benchmarks.checkpoints import hf_125m
from benchmarks.child import run_cli
from benchmarks.command import check, judged, read_arguments
from benchmarks.harness import Bar, machine_facts, print_bars, write_json
from xlstm_export.runtime.ort import cpu_threads

GIB = 2**30
MOST_SECONDS, MOST_MINUTES, MOST_GIB = 60, 45, 8


@dataclass(frozen=True)
class Run:
    """One validation: of a right bundle, or with the gates of one block swapped."""

    what: str
    minutes: float
    cpu_minutes: float
    peak_gib: float
    verdict: str
    mode: str
    where: str
    worst: float
    """The largest error, in units of what the rule allows."""


def swap_gates(bundle: Path, block: int) -> None:
    """Input and forget gate of ``block`` change places in the graph of ``bundle``."""
    path = str(bundle / "model.onnx")
    model = onnx.load(path, load_external_data=False)
    node = [node for node in model.graph.node if node.op_type == "XlstmMLSTM"][block]
    node.input[3], node.input[4] = node.input[4], node.input[3]
    onnx.save(model, path)


def validate(bundle: Path, source: Path, what: str, memory: str | None, reports: Path) -> Run:
    """The command line's verdict, time and memory; None: what is available."""
    words = ["validate", str(bundle), "--reference", str(source), "--json"]
    words += ["--report", str(reports / what.replace(" ", "-"))]
    child = run_cli([*words, *(["--memory", memory] if memory else [])], codes=(0, 1))
    report: dict[str, Any] = json.loads(child.stdout)
    location = report["location"]
    where = f"{location['layer']}: {location['cause']}" if location else ""
    worst = max(
        (r["judgement"]["max_error"] or 0) / (r["judgement"]["max_allowed"] or 1)
        for r in report["results"]
    )
    minutes, cpu_minutes = child.seconds / 60, child.cpu_seconds / 60
    return Run(
        what, minutes, cpu_minutes, child.peak_bytes / GIB, report["verdict"], report["mode"],
        where, worst,
    )  # fmt: skip


def bench_125m(folder: Path, arguments: argparse.Namespace) -> tuple[list[Run], list[Bar]]:
    """The same bundles as a whole and layer by layer, to the same verdicts and places."""
    source = hf_125m(folder / "hf", small=arguments.quick).path
    bundle, runs = folder / "bundle", list[Run]()
    run_cli(["export", str(source), "-o", str(bundle), "--dtype", "fp32"])
    for what in ("125m", "125m swapped"):
        if "swapped" in what:
            swap_gates(bundle, 1)
        for memory, mode in ((None, "whole"), ("2300MiB", "in parts")):
            runs.append(validate(bundle, source, f"{what} {mode}", memory, folder))
            _print(runs[-1:], Console())
    shutil.rmtree(bundle)
    whole, parts = runs[0::2], runs[1::2]
    alike = sum(
        (a.verdict, a.where) == (b.verdict, b.where) for a, b in zip(whole, parts, strict=True)
    )
    seconds = 60 * runs[0].minutes
    return runs, [
        Bar("125m, whole", seconds, MOST_SECONDS, "s", at_least=False),
        Bar("125m, layer by layer with the verdict and the place of the whole", alike, 2, ""),
    ]


def bench_7b(folder: Path, arguments: argparse.Namespace) -> tuple[list[Run], list[Bar]]:
    """Right bundles and such with two gates of a block swapped, within the memory that is given."""
    blocks = 2 if arguments.quick else arguments.blocks
    source, runs = xlstm_7b(folder / "7b", blocks).path, list[Run]()
    for dtype in arguments.dtypes[:1] if arguments.quick else arguments.dtypes:
        bundle = folder / "bundle"
        run_cli(["export", str(source), "-o", str(bundle), "--dtype", dtype])
        runs.append(validate(bundle, source, f"7b {dtype}", arguments.memory, folder))
        _print(runs[-1:], Console())
        swap_gates(bundle, min(17, blocks - 1))
        runs.append(validate(bundle, source, f"7b {dtype} swapped", arguments.memory, folder))
        _print(runs[-1:], Console())
        shutil.rmtree(bundle)
    right = [run for run in runs if "swapped" not in run.what]
    found = [r for r in runs if r not in right and r.where.startswith("layers.17.mlstm")]
    return runs, [
        Bar("7b", max(r.minutes for r in right), MOST_MINUTES, "min", at_least=False),
        Bar("7b, peak VmHWM", max(r.peak_gib for r in runs), MOST_GIB, "GiB", at_least=False),
        Bar(
            "7b, right bundles that pass", sum(r.verdict != "failed" for r in right), len(right), ""
        ),
        Bar("7b, faults that are located", len(found), len(runs) - len(right), ""),
    ]


PARTS = {"125m": bench_125m, "7b": bench_7b}


def main() -> None:
    """Measure, print, and say whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", default=["fp16", "bf16"], help="of 7b")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="of 7b")
    parser.add_argument("--memory", default=f"{MOST_GIB}GiB", help="of 7b")
    parser.add_argument("--work", type=Path, help="folder for checkpoints and bundles")
    arguments = read_arguments(parser, quick="two blocks, one dtype", parts=PARTS)
    facts = machine_facts(cpu_threads())
    runs, bars = list[Run](), list[Bar]()
    with tempfile.TemporaryDirectory(prefix="xlstm-bench-", dir=arguments.work) as name:
        for part in arguments.parts:
            found = PARTS[part](Path(name), arguments)
            runs += found[0]
            bars += found[1]
    bars = judged(bars, arguments)
    print_bars(bars, Console())
    if arguments.json:
        write_json(arguments.json, {"machine": facts, "runs": [asdict(r) for r in runs]})
    check(bars, arguments)


def _print(runs: list[Run], console: Console) -> None:
    table = Table("bundle", "minutes", "CPU min", "peak GiB", "verdict", "mode", "worst", "where")
    for r in runs:
        table.add_row(
            r.what, f"{r.minutes:.1f}", f"{r.cpu_minutes:.1f}", f"{r.peak_gib:.2f}", r.verdict,
            r.mode, f"{r.worst:.2g}", r.where,
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
