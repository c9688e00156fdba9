"""``xlstm-export bench``: how fast a bundle runs here, by every backend at hand."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.table import Table

import xlstm_export as xe
from xlstm_export_cli.arguments import (
    BundleArgument,
    ConfigOption,
    FamilyOption,
    JsonOption,
    PrefixOption,
    ThreadsOption,
)
from xlstm_export_cli.console import console, error_console, print_json

ReferenceOption = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="Checkpoint, to measure PyTorch beside the bundle."),
]
RowsOption = Annotated[
    list[int] | None,
    typer.Option(metavar="N", help="Batch size; once for each. Default: 1 and 16.", min=1),
]
PromptStepsOption = Annotated[
    int, typer.Option("--prompt", metavar="N", help="Length of the prompts.", min=1)
]
StepsOption = Annotated[
    int, typer.Option(metavar="N", help="Steps, or whole inputs, that are timed.", min=1)
]


def bench(
    bundle: BundleArgument,
    reference: ReferenceOption = None,
    family: FamilyOption = "auto",
    config: ConfigOption = None,
    prefix: PrefixOption = "",
    rows: RowsOption = None,
    prompt: PromptStepsOption = 128,
    steps: StepsOption = 50,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Measure OUT: rate, time to the first token, percentiles, memory.

    Every backend that this machine has takes its turn; on a busy machine the figures are those of
    a busy machine.
    """
    made = xe.bench(
        bundle, reference, family=family, config=config, prefix=prefix, rows=rows or (1, 16),
        prompt=prompt, steps=steps, threads=threads,
    )  # fmt: skip
    if json:
        measured = [
            {**dataclasses.asdict(m), "times_pytorch": made.ratio(m)} for m in made.measured
        ]
        print_json({"bundle": str(made.bundle), "prompt": made.prompt, "steps": made.steps,
                    "measured": measured, "missing": dict(made.missing)})  # fmt: skip
        return
    _print(made)
    for backend, reason in made.missing:
        error_console().print(f"not measured: {backend}: {reason}", style="dim")


def _print(made: xe.Benchmark) -> None:
    unit = made.measured[0].unit
    table = Table(box=None, pad_edge=False)
    for name in ("backend", "rows", f"{unit}/s", "first ms", "p50 ms", "p95 ms", "p99 ms", "MiB"):
        table.add_column(name, justify="left" if name == "backend" else "right")
    with_peer = any(made.ratio(m) is not None for m in made.measured)
    if with_peer:
        table.add_column("x PyTorch", justify="right")
    for m in made.measured:
        times = [f"{seconds * 1e3:.2f}" for seconds in (m.first, m.p50, m.p95, m.p99)]
        memory = "" if m.memory is None else f"{m.memory / 2**20:.0f}"
        ratio = made.ratio(m)
        last = [] if not with_peer else ["" if ratio is None else f"{ratio:.1f}"]
        table.add_row(m.backend, str(m.rows), f"{m.rate:.1f}", *times, memory, *last)
    console().print(table)
