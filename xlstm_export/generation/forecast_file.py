"""From a table of series to a table of quantiles, and its plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlstm_export.errors import InputError, OptionError
from xlstm_export.generation.forecast import Forecast, forecast_series
from xlstm_export.generation.tables import Table, import_pandas, read_table
from xlstm_export.output import new_file
from xlstm_export.runtime.session import Session

if TYPE_CHECKING:
    import pandas as pd

OUTPUTS, PLOTS = (".csv", ".npy"), (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class ForecastTable:
    """What ``forecast_file`` made: a forecast of the series ``names`` of ``history``.

    ``time`` is the index of the horizon. ``notes`` say what a reader should know.
    """

    forecast: Forecast
    names: tuple[str, ...]
    history: Table
    time: pd.Index
    notes: tuple[str, ...]

    @property
    def has_dates(self) -> bool:
        """Whether ``time`` is of dates, not of numbers."""
        return isinstance(self.time, import_pandas().DatetimeIndex)

    def to_csv(self) -> str:
        """One line a series and step: series, time, and a column for each quantile."""
        pandas = import_pandas()
        levels = [f"{level:g}" for level in self.forecast.levels]
        frames = []
        for name, quantiles in zip(self.names, self.forecast.quantiles, strict=True):
            frame = pandas.DataFrame(quantiles, columns=levels)
            frame.insert(0, "time", self.time)
            frame.insert(0, "series", name)
            frames.append(frame)
        text: str = pandas.concat(frames).to_csv(index=False, float_format="%.7g")
        return text


def run_file(
    session: Session,
    source: str | Path,
    horizon: int,
    *,
    columns: Sequence[str] = (),
    time: str | None = None,
    past_covariates: Sequence[str] = (),
    future_covariates: Sequence[str] = (),
    output: Path | None = None,
    plot: Path | None = None,
    **options: Any,
) -> ForecastTable:
    """As ``pipeline.forecast_file``, by a session that is open."""
    for option, path, known in (("output", output, OUTPUTS), ("plot", plot, PLOTS)):
        if path is not None and path.suffix.lower() not in known:
            raise OptionError(option, f"{path} does not end in {', '.join(known)}")
    beside = [*past_covariates, *future_covariates]
    table = read_table(source, [*columns, *beside] if columns else (), time)
    missing = [name for name in beside if name not in table.series]
    if missing:
        raise InputError(f"{source}: no column {missing[0]}; it has {', '.join(table.series)}")
    names = tuple(columns or (name for name in table.series if name not in beside))
    ahead = horizon if future_covariates else 0
    length = len(table.time) - ahead
    targets = [table.series[name] for name in names]
    if length < 1 or any(np.isfinite(row[length:]).any() for row in targets):
        raise InputError(
            f"{source}: covariates known ahead need {horizon} more rows after the last value of "
            "the series, which are empty there"
        )
    forecast = forecast_series(
        session, [row[:length] for row in targets], horizon,
        past_covariates=[table.series[name][:length] for name in past_covariates] or None,
        future_covariates=[table.series[name] for name in future_covariates] or None,
        **options,
    )  # fmt: skip
    after = table.time[length:] if ahead else table.time_after(horizon)
    history = Table({n: table.series[n][:length] for n in names}, table.time[:length])
    made = ForecastTable(forecast, names, history, after, (table.note,) if table.note else ())
    if output is not None:
        with new_file(output) as work:
            if output.suffix.lower() == ".csv":
                work.write_text(made.to_csv(), encoding="utf-8")
            else:
                with work.open("wb") as file:
                    np.save(file, forecast.quantiles)
    if plot is not None:
        from xlstm_export.generation.forecast_plot import draw

        with new_file(plot) as work:
            draw(made, work, plot.suffix.lower().lstrip("."))
    return made
