"""``xlstm-export serve``: a bundle behind HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

import xlstm_export as xe
from xlstm_export_cli.arguments import (
    BackendOption,
    BundleArgument,
    EngineOption,
    NativeOption,
    ThreadsOption,
)
from xlstm_export_cli.console import error_console

HostOption = Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")]
PortOption = Annotated[int, typer.Option(metavar="N", help="0 takes a free one.")]
NameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Name of the model; default: OUT's folder.")
]
RowsOption = Annotated[
    int, typer.Option(metavar="N", help="Continuations that step together.", min=1)
]
WaitingOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Continuations, or forecasts, that wait; to more the answer is 429.",
        min=0,
    ),
]
PromptOption = Annotated[int, typer.Option(metavar="N", help="Longest prompt.", min=1)]
NewOption = Annotated[int, typer.Option(metavar="N", help="Most tokens of an answer.", min=1)]
SeriesOption = Annotated[int, typer.Option(metavar="N", help="Most series of a request.", min=1)]
TimeoutOption = Annotated[
    float, typer.Option(metavar="SECONDS", help="Longest time of an answer.", min=1)
]
GraceOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", help="Time that answers under way have when it is stopped.", min=1
    ),
]


def serve(
    bundle: BundleArgument,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    name: NameOption = None,
    max_rows: RowsOption = 16,
    max_waiting: WaitingOption = 64,
    max_prompt_tokens: PromptOption = 32_768,
    max_new_tokens: NewOption = 4_096,
    max_series: SeriesOption = 1_024,
    timeout: TimeoutOption = 300.0,
    grace: GraceOption = 30.0,
    threads: ThreadsOption = None,
    native: NativeOption = True,
    engine: EngineOption = None,
    backend: BackendOption = "auto",
) -> None:
    """Answer HTTP requests with OUT: completions, or forecasts.

    /v1/completions as OpenAI's clients ask, or /v1/forecast. By default this machine alone can
    reach it. There is no login: put a proxy in front of it before you give another --host.
    """
    xe.serve(
        bundle, host=host, port=port, name=name, max_rows=max_rows, max_waiting=max_waiting,
        max_prompt_tokens=max_prompt_tokens, max_new_tokens=max_new_tokens, max_series=max_series,
        timeout=timeout, grace=grace, ready=_say, engine=engine, backend=backend, threads=threads,
        native=native,
    )  # fmt: skip


def _say(address: str) -> None:
    error_console().print(f"listening on {address}; stop with Ctrl-C")
