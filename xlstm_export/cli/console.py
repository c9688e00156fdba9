"""Where the command line prints: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def error_console() -> Console:
    """Console on stderr; long lines wrap at spaces, never inside a path."""
    return Console(stderr=True, soft_wrap=True)


def console() -> Console:
    """Console on stdout."""
    return Console(soft_wrap=True)


def print_json(content: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(content, indent=2, default=str))


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr, shown on terminals only; yields its update function."""
    columns = (
        TextColumn("{task.description}"),
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
