"""Where the command line prints: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

import xlstm_export as xe

_LINES = 10
"""Of an error: the longest names every kind of checkpoint, a line each."""
_SILENCE_S = 5.0
_LINE_LENGTH = 600


def error_console() -> Console:
    """Console on stderr; long lines wrap at spaces, never inside a path."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def console() -> Console:
    """Console on stdout; what is printed is not searched for markup."""
    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


def print_error(message: str) -> None:
    """A few lines on stderr. Names out of a file may hold anything: terminals get none of it."""
    lines = message.splitlines()[:_LINES] or [""]
    shown = "\n".join(line[:_LINE_LENGTH] for line in lines)
    clean = "".join(c if c.isprintable() or c == "\n" else "?" for c in shown)
    error_console().print(f"error: {clean}", style="red")


def print_json(content: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(content, indent=2, default=str))


@contextmanager
def progress_bar(title: str) -> Iterator[xe.Progress]:
    """Progress on stderr: a bar on a terminal, else a line now and then."""
    bar_console = error_console()
    if not bar_console.is_terminal:
        yield _Lines(title)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=bar_console, transient=True) as bar:
        task = bar.add_task(title, total=None, amount="")

        def update(what: str, done: int, total: int, unit: str = "") -> None:
            bar.update(
                task, completed=done, total=total or None, description=f"{title} {what}"[:60],
                amount=_amount(done, total, unit),
            )  # fmt: skip

        yield update


class _Lines:
    """Progress where nothing can be drawn over: what is going on, at most every few seconds."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._next = time.monotonic() + _SILENCE_S

    def __call__(self, what: str, done: int, total: int, unit: str = "") -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SILENCE_S
            error_console().print(f"{self._title} {what} {_amount(done, total, unit)}".rstrip())


def _amount(done: int, total: int, unit: str) -> str:
    if not total:
        return ""
    if unit == "bytes":
        return f"{decimal(done)} of {decimal(total)}"
    return f"{done}/{total} {unit}".rstrip()
