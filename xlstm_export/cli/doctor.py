"""``xlstm-export doctor``: what this machine can do, and how to get the rest."""

from __future__ import annotations

import dataclasses

import typer

from xlstm_export import __version__
from xlstm_export.cli.arguments import JsonOption
from xlstm_export.cli.console import console, print_json
from xlstm_export.environment import diagnose


def doctor(json: JsonOption = False) -> None:
    """Say what this machine can do and what is missing."""
    findings = diagnose()
    if json:
        print_json([dataclasses.asdict(f) for f in findings])
        return
    out = console()
    for finding in findings:
        mark = "✓" if finding.ok else "✗"
        cure = f"  -> {finding.cure}" if finding.cure else ""
        out.print(f"[{mark}] {finding.what:34} {finding.found}{cure}")


def print_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(__version__)
        raise typer.Exit()
