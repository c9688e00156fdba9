"""Export of a 125M-shaped checkpoint by the real command line: seconds and peak memory.

python -m benchmarks.bench_export [--source DIR] [--dtype fp32] [--runs 3] [--json F] [--check]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.child import ChildRun, run_cli
from benchmarks.command import check, judged, read_arguments
from benchmarks.harness import Bar, machine_facts, print_bars, write_json
from xlstm_export.runtime.ort import cpu_threads

GIB = 2**30


def measure(source: Path, folder: Path, dtype: str, runs: int) -> list[ChildRun]:
    """``runs`` exports of ``source``, each in a process of its own."""
    command = ["export", str(source), "-o", str(folder / "bundle"), "--dtype", dtype]
    return [run_cli([*command, "--overwrite", "--json"]) for _ in range(runs)]


def main() -> None:
    """Measure, print, and say whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="a checkpoint, instead of a random 125M one")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--runs", type=int, default=3)
    arguments = read_arguments(parser, quick="a small checkpoint, once")
    facts = machine_facts(cpu_threads())
    with tempfile.TemporaryDirectory(prefix="xlstm-bench-") as name:
        folder = Path(name)
        source = arguments.source
        if source is None:
            from benchmarks.checkpoints import hf_125m

            source = hf_125m(folder / "hf", small=arguments.quick).path
        size = sum(f.stat().st_size for f in source.iterdir()) if source.is_dir() else 0
        runs = measure(source, folder, arguments.dtype, 1 if arguments.quick else arguments.runs)
    seconds, peak = max(r.seconds for r in runs), max(r.peak_bytes for r in runs)
    bars = [
        Bar("export, from Python's start to exit", seconds, 20, "s", at_least=False),
        Bar("export, peak VmHWM", peak / GIB, 1.2, "GiB", at_least=False),
    ]
    bars = judged(bars, arguments)
    _print(runs, size, bars, Console())
    if arguments.json:
        write_json(arguments.json, _content(facts, size, runs, bars))
    check(bars, arguments)


def _content(
    facts: dict[str, Any], size: int, runs: list[ChildRun], bars: list[Bar]
) -> dict[str, Any]:
    measured = [{"seconds": r.seconds, "peak_bytes": r.peak_bytes} for r in runs]
    return {"machine": facts, "checkpoint_bytes": size, "runs": measured, "bars": bars}


def _print(runs: list[ChildRun], size: int, bars: list[Bar], console: Console) -> None:
    table = Table(title=f"Export of {size / 1e6:.0f} MB")
    for column in ("in the command, s", "start to exit, s", "peak VmHWM, MiB"):
        table.add_column(column, justify="right")
    for run in runs:
        inside = json.loads(run.stdout)["seconds"]
        table.add_row(f"{inside:.2f}", f"{run.seconds:.2f}", f"{run.peak_bytes / 2**20:.0f}")
    console.print(table)
    print_bars(bars, console)


if __name__ == "__main__":
    main()
