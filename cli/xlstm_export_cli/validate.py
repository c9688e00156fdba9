"""``xlstm-export validate``: a bundle against the upstream module; exit code is the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import xlstm_export as xe
from xlstm_export_cli.arguments import (
    BackendOption,
    BundleArgument,
    ConfigOption,
    EngineOption,
    FamilyOption,
    JsonOption,
    NativeOption,
    PrefixOption,
    ThreadsOption,
)
from xlstm_export_cli.console import console, error_console, progress_bar

_SHOWN = 5


def validate(
    bundle: BundleArgument,
    reference: Annotated[
        str, typer.Option("--reference", help="SOURCE the bundle was made from.", metavar="SOURCE")
    ],
    family: FamilyOption = "auto",
    config: ConfigOption = None,
    prefix: PrefixOption = "",
    upstream: Annotated[
        bool, typer.Option(help="Compare with the upstream package where it is installed.")
    ] = True,
    native: NativeOption = True,
    engine: EngineOption = None,
    backend: BackendOption = "auto",
    batch: Annotated[int, typer.Option(metavar="N", help="Rows of the rollout.", min=1)] = 2,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the inputs.", min=0)] = 0,
    threads: ThreadsOption = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="DIR", help="Folder of the report.", show_default="OUT/reports"
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare OUT with SOURCE; exit code 0 says they agree.

    Every output and every state is compared, over a rollout with carried states. Where the report
    cannot be written, the exit code is still that of the verdict.
    """
    with progress_bar("validate") as progress:
        found = xe.validate(
            bundle, reference, family=family, config=config, prefix=prefix, upstream=upstream,
            native=native, engine=engine, backend=backend, threads=threads, batch=batch,
            seed=seed, progress=progress,
        )  # fmt: skip
    if not json:
        _print(found)
    path, failure = _write(found, report or bundle / "reports", engine)
    if json:
        typer.echo(xe.report_json(found, failure))
    elif path:
        console().print(f"  report     {path}")
    if failure:
        warning = f"the report is not written: {failure}; name another folder with --report DIR"
        error_console().print(f"warning: {warning}", style="yellow")
    if not found.ok:
        raise typer.Exit(1)


def _write(report: xe.Report, folder: Path, engine: str | None) -> tuple[Path | None, str]:
    """Path of the report, or why it could not be written."""
    try:
        return xe.write_report(report, folder, engine), ""
    except xe.TargetError as error:
        return None, str(error)


def _print(report: xe.Report) -> None:
    out = console()
    colour = {"validated": "green", "self-consistent": "yellow", "failed": "red"}[report.verdict]
    out.print(f"verdict: {report.verdict}", style=colour)
    if not report.ok:
        out.print(f"  failed     {report.explanation}")
    out.print(f"  subject    {report.subject}")
    for domain, implementation in report.subject_ops.items():
        out.print(f"  operators  {domain}: {implementation}")
    out.print(f"  reference  {report.reference}")
    for note in report.notes:
        out.print(f"  note       {note}")
    if not report.source_matches_bundle:
        out.print("  note       the reference is not the source this bundle was made from")
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
