"""``xlstm-export validate``: a bundle against the upstream module; exit code is the verdict."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import xlstm_export as xe
from xlstm_export_cli import own_module
from xlstm_export_cli.arguments import (
    BackendOption,
    BundleArgument,
    ConfigOption,
    EngineOption,
    FamilyOption,
    JsonOption,
    ModuleOption,
    NativeOption,
    PrefixOption,
    ThreadsOption,
    WeightsOption,
)
from xlstm_export_cli.console import console, error_console, progress_bar

ReferenceOption = Annotated[
    str | None,
    typer.Option("--reference", help="SOURCE the bundle was made from.", metavar="SOURCE"),
]
UpstreamOption = Annotated[
    bool, typer.Option(help="Compare with the upstream package where it is installed.")
]
BatchOption = Annotated[int, typer.Option(metavar="N", help="Rows of the rollout.", min=1)]
SamplesOption = Annotated[
    Path | None,
    typer.Option("--samples", metavar="FILE", help="Inputs and outputs recorded elsewhere (.npz)."),
]
SeedOption = Annotated[int, typer.Option(metavar="N", help="Seed of the inputs.", min=0)]
BudgetOption = Annotated[
    str, typer.Option(metavar="fast|full", help="How much the checks do; full takes minutes.")
]
InputsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Compare on this: text, .npy, .npz, .csv, or Polygraphy's .json.",
    ),
]
SaveOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Save inputs and outputs here for Polygraphy."),
]
AgainstOption = Annotated[
    Path | None, typer.Option(metavar="OTHER", help="Compare with this other bundle too.")
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Most memory to take, such as 8GiB; a larger model goes layer by layer.",
        show_default="available",
    ),
]
JunitOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the results as JUnit XML, for CI.", dir_okay=False),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report", metavar="DIR", help="Folder of the report.", show_default="OUT/reports"
    ),
]

_SHOWN = 5


def validate(
    bundle: BundleArgument,
    reference: ReferenceOption = None,
    module: ModuleOption = None,
    weights: WeightsOption = None,
    family: FamilyOption = "auto",
    config: ConfigOption = None,
    prefix: PrefixOption = "",
    upstream: UpstreamOption = True,
    native: NativeOption = True,
    engine: EngineOption = None,
    backend: BackendOption = "auto",
    batch: BatchOption = 2,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    samples: SamplesOption = None,
    budget: BudgetOption = "fast",
    inputs: InputsOption = None,
    save_io: SaveOption = None,
    against: AgainstOption = None,
    memory: MemoryOption = None,
    junit: JunitOption = None,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Compare OUT with SOURCE or --module; exit code 0: they agree.

    Every output and every state is compared, over a rollout with carried states. Where the report
    cannot be written, the exit code is still that of the verdict. Ctrl-C ends it with exit code
    130, and the report holds what was compared.
    """
    own_module.refuse(
        module,
        {"reference": reference, "family": None if family == "auto" else family,
         "config": config, "prefix": prefix, "upstream": None if upstream else False,
         "inputs": inputs, "save_io": save_io, "against": against, "memory": memory},
        {"weights": weights},
    )  # fmt: skip
    how: dict[str, Any] = {
        "native": native, "engine": engine, "backend": backend, "threads": threads,
        "batch": batch, "seed": seed, "samples": samples, "budget": budget,
    }  # fmt: skip
    with _interruptible(), progress_bar("validate") as progress:
        if module is not None:
            found = own_module.validate(bundle, module, weights, progress, **how)
        elif reference is not None:
            if family == "auto":  # a name of one is checked first, by what takes time to load
                xe.Bundle.open(bundle)
            found = xe.validate(
                bundle, reference, family=family, config=config, prefix=prefix, upstream=upstream,
                inputs=inputs, save_io=save_io, against=against, memory=memory,
                progress=progress, **how,
            )  # fmt: skip
        else:
            raise typer.BadParameter("give --reference SOURCE, or --module")
    _tell(found, report or bundle / "reports", junit, json)
    if found.verdict == "failed":
        raise typer.Exit(1)
    if not found.complete:
        raise typer.Exit(130)


@contextmanager
def _interruptible() -> Iterator[None]:
    """A stopping signal ends the comparison, whose report then holds what was done."""
    came: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    try:
        with xe.on_stop(interrupt):
            yield
    except KeyboardInterrupt:  # nothing was done: it ends as every command does
        for number in came[-1:]:
            signal.raise_signal(number)
        raise


def _tell(found: xe.Report, folder: Path, junit: Path | None, json: bool) -> None:
    """Print the report and write its files."""
    if not json:
        _print(found)
    path, failures = _write(found, folder, junit)
    if json:
        typer.echo(xe.report_json(found, "; ".join(failures)))
    elif path:
        console().print(f"  report     {path}")
    for failure in failures:
        error_console().print(f"warning: {failure}", style="yellow")


def _write(report: xe.Report, folder: Path, junit: Path | None) -> tuple[Path | None, list[str]]:
    """Path of the report, and what could not be written, and why; one does not stop the other."""
    path, failures = None, []
    try:
        path = xe.write_report(report, folder)
    except xe.TargetError as error:
        cure = "name another folder with --report DIR"
        failures.append(f"the report is not written: {error}; {cure}")
    try:
        if junit is not None:
            xe.write_junit(report, junit)
    except xe.TargetError as error:
        failures.append(f"the JUnit XML is not written: {error}; name another with --junit FILE")
    return path, failures


def _print(report: xe.Report) -> None:
    out = console()
    colour = {"validated": "green", "failed": "red"}.get(report.verdict, "yellow")
    out.print(f"verdict: {report.verdict}", style=colour)
    if report.verdict == "failed":
        out.print(f"  failed     {report.explanation}")
    if report.location is not None:
        out.print(f"  where      {report.location.words}")
        out.print(f"  likely     {report.location.cause}")
    out.print(f"  subject    {report.subject}")
    for domain, implementation in report.subject_ops.items():
        out.print(f"  operators  {domain}: {implementation}")
    out.print(f"  reference  {report.reference}")
    if report.mode != "whole":
        out.print(f"  mode       {report.mode}")
    for note in report.notes:
        out.print(f"  note       {note}")
    if not report.source_matches_bundle:
        out.print("  note       the reference is not the source this bundle was made from")
    if report.against is not None:
        out.print(f"  against    {report.against.bundle}: {report.against.words}")
        out.print(f"             {report.against.reason}")
    for check in report.checks:
        if not check.ok:
            out.print(f"  check      {check.name}: {check.reason}")
    if report.checks:
        ran = [check for check in report.checks if check.outcome != "skipped"]
        more = "" if report.complete else ", interrupted before the rest"
        out.print(f"  checks     {sum(c.ok for c in ran)} of {len(ran)} passed{more}")
    results = report.in_order()
    for result in results[:_SHOWN]:
        j = result.judgement
        mark = "✓" if j.ok else "✗"
        numbers = (
            f"max {j.max_error:.1e} of {j.max_allowed:.1e}, "
            f"rms {j.rms_error:.1e} of {j.rms_allowed:.1e}"
        )
        shown = numbers if result.finite else "NaN or infinity"
        out.print(f"  [{mark}] {result.name:24} {shown}")
        if result.best_token and result.finite:
            out.print(f"      {result.best_token.words}")
    if len(results) > _SHOWN:
        out.print(f"  … and {len(results) - _SHOWN} more tensors, none worse than the last shown")
