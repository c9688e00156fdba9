"""``xlstm-export doctor``: what this machine can do, and how to get the rest."""

from __future__ import annotations

import dataclasses

import typer
from rich.text import Text

import xlstm_export as xe
from xlstm_export_cli.arguments import JsonOption
from xlstm_export_cli.console import console, print_json


def doctor(json: JsonOption = False) -> None:
    """Say what this machine can do and what is missing."""
    findings = xe.diagnose()
    if json:
        print_json([dataclasses.asdict(f) for f in findings])
        return
    out = console()
    for finding in findings:
        mark, colour = ("✓", "green") if finding.ok else ("✗", "yellow")
        line = Text.assemble((f"[{mark}]", colour), f" {finding.what:34} {finding.found}")
        if finding.cure:
            line.append(f"  -> {finding.cure}", "cyan")
        out.print(line)


def print_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(xe.__version__)
        raise typer.Exit()


def print_cmake_dir(wanted: bool) -> None:
    """Print the folder of the CMake package and stop."""
    if wanted:
        typer.echo(xe.cmake_dir())
        raise typer.Exit()
