"""Where the command line prints: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_LINES = 6
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
def progress_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr, shown on terminals only; yields its update function."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    bar_console = error_console()
    with Progress(
        *columns, console=bar_console, transient=True, disable=not bar_console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)

        def update(what: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{title} {what}"[:60])

        yield update
