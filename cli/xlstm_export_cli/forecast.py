"""Forecasts, as ``xlstm-export run`` prints them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import xlstm_export as xe
from xlstm_export_cli.console import console, error_console, print_json

CsvOption = Annotated[
    str | None,
    typer.Option(
        "--csv", metavar="FILE", help="Series to forecast: a table, or .npy; - is a table on stdin."
    ),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="NAME[,NAME]", help="Columns to forecast; default: all."),
]
TimeOption = Annotated[
    str | None, typer.Option("--time", metavar="NAME", help="Column of the rows' times.")
]
HorizonOption = Annotated[
    int | None, typer.Option("--horizon", metavar="N", help="Steps to forecast.", min=1)
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE.png", help="Where to draw the forecast.")
]
TogetherOption = Annotated[
    bool, typer.Option("--together", help="Let the columns see each other, where a model can.")
]
PastOption = Annotated[
    list[str] | None,
    typer.Option(
        "--past-covariates", metavar="NAME[,NAME]", help="Columns beside them, known till now."
    ),
]
FutureOption = Annotated[
    list[str] | None,
    typer.Option(
        "--future-covariates",
        metavar="NAME[,NAME]",
        help="Columns known ahead: N more rows, empty in the others.",
    ),
]
RolloutOption = Annotated[
    str,
    typer.Option(
        "--rollout", metavar="NAME", help="Beyond one call: carried goes on, rerun begins again."
    ),
]


@dataclass(frozen=True)
class Request:
    """What the command line said of a forecast."""

    csv: str
    horizon: int | None
    columns: list[str] | None
    time: str | None
    plot: Path | None
    output: Path | None
    together: bool
    past: list[str] | None
    future: list[str] | None
    rollout: str


def run_forecast(bundle: Path, request: Request, where: dict[str, Any], json: bool) -> None:
    """Forecast, write what was asked for, and print the rest."""
    if request.horizon is None:
        raise typer.BadParameter("--csv needs --horizon: how many steps to forecast")
    start = time.perf_counter()
    made = xe.forecast_file(
        bundle, request.csv, request.horizon, columns=_names(request.columns), time=request.time,
        output=request.output, plot=request.plot, together=request.together,
        past_covariates=_names(request.past), future_covariates=_names(request.future),
        rollout=request.rollout, **where,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    for note in made.notes:
        error_console().print(f"note: {note}", style="yellow")
    if json:
        print_json(_as_json(made, request, seconds))
        return
    if request.output is None:
        typer.echo(made.to_csv(), nl=False)
    for path in (request.output, request.plot):
        if path is not None:
            console().print(str(path), soft_wrap=True, highlight=False)
    session = made.forecast.session
    error_console().print(
        f"{len(made.names)} series, {request.horizon} steps in {seconds:.2f} s, "
        f"{'; '.join([session.name, *session.describe().values()])}",
        style="dim",
    )


def _names(given: list[str] | None) -> list[str]:
    """Names in words of their own, or several in one with commas between them."""
    return [name.strip() for word in given or [] for name in word.split(",") if name.strip()]


def _as_json(made: xe.ForecastTable, request: Request, seconds: float) -> dict[str, Any]:
    forecast = made.forecast
    return {
        "series": list(made.names),
        "time": [str(moment) for moment in made.time],
        "levels": list(forecast.levels),
        "quantiles": forecast.quantiles.tolist(),
        "output": None if request.output is None else str(request.output),
        "plot": None if request.plot is None else str(request.plot),
        "notes": list(made.notes),
        "seconds": seconds,
        "session": forecast.session.name,
        "operators": forecast.session.describe(),
    }
