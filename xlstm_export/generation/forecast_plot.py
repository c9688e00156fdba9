"""A forecast as a picture: the end of each series, its median, and a band for each interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, OptionError
from xlstm_export.generation.forecast_file import ForecastTable

_MOST_SERIES = 12
_LEAST_HISTORY, _HISTORY = 96, 4
"""Steps of the past that are drawn: this many horizons, but not fewer than the least."""
_PAST, _AHEAD = "#334155", "#0f766e"


def draw(made: ForecastTable, path: Path, kind: str) -> None:
    """Write the plot of ``made`` to ``path``, as ``kind`` (png, svg, pdf).

    Raises BackendUnavailableError where matplotlib is missing, OptionError for more series than
    one page has room for.
    """
    try:
        from matplotlib import dates as library
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailableError(f"plots need matplotlib: {install('matplotlib')}") from error
    dates: Any = library  # not typed
    count = len(made.names)
    if count > _MOST_SERIES:
        raise OptionError("plot", f"{count} series are more than the {_MOST_SERIES} of one page")
    figure = Figure(figsize=(9, 0.7 + 2.6 * count), layout="constrained")
    for number, axes in enumerate(np.ravel(figure.subplots(count, squeeze=False))):
        _draw_series(axes, made, number)
        if made.has_dates:
            locator = dates.AutoDateLocator(maxticks=9)
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    figure.savefig(path, format=kind, dpi=150)


def _draw_series(axes: Any, made: ForecastTable, number: int) -> None:
    name, levels = made.names[number], made.forecast.levels
    steps = made.forecast.quantiles.shape[1]
    shown = max(_LEAST_HISTORY, _HISTORY * steps)
    history = made.history.series[name][-shown:]
    axes.plot(made.history.time[-shown:], history, color=_PAST, linewidth=1.2, label="observed")
    pairs = [(low, high) for low, high in zip(levels, reversed(levels), strict=True) if low < high]
    for low, high in pairs:
        axes.fill_between(
            made.time, made.forecast.quantile(low)[number], made.forecast.quantile(high)[number],
            color=_AHEAD, alpha=0.55 / len(pairs), linewidth=0,
            label=f"{low:g} to {high:g}" if (low, high) == pairs[0] else None,
        )  # fmt: skip
    axes.plot(made.time, made.forecast.median[number], color=_AHEAD, linewidth=1.6, label="median")
    axes.axvline(made.time[0], color="#94a3b8", linewidth=0.8, linestyle=":")
    axes.set_title(name, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e2e8f0", linewidth=0.8)
    axes.margins(x=0.01)
    if number == 0:
        axes.legend(loc="upper left", frameon=False, fontsize=8, ncols=3)
