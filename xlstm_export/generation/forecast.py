"""Forecasts of series: rows side by side, long horizons on the carried state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from xlstm_export.bundle.manifest import ForecastInfo
from xlstm_export.errors import BundleError, InputError, OptionError
from xlstm_export.runtime.feeds import as_numbers
from xlstm_export.runtime.session import Array, Session

Rollout = Literal["carried", "rerun"]
"""How a forecast goes beyond one call: on the carried state, or over the whole context again."""

CONTEXT, PAST, FUTURE, GROUPS = "context", "past_covariates", "future_covariates", "groups"
"""Inputs of forecasters; those of one series at a time take ``context`` alone."""


@dataclass(frozen=True)
class Forecast:
    """``quantiles`` float32 [series, horizon, Q], in the unit of the series, Q as ``levels``."""

    quantiles: Array
    levels: tuple[float, ...]
    session: Session

    @property
    def median(self) -> Array:
        """The quantile nearest to 0.5, float32 [series, horizon]."""
        return self.quantile(min(self.levels, key=lambda level: abs(level - 0.5)))

    def quantile(self, level: float) -> Array:
        """The quantile of ``level``, float32 [series, horizon].

        Raises OptionError where the model has none of that level.
        """
        for index, known in enumerate(self.levels):
            if abs(known - level) < 1e-6:
                return np.asarray(self.quantiles[..., index])
        known_levels = ", ".join(f"{known:g}" for known in self.levels)
        raise OptionError("level", f"{level:g} is not one of {known_levels}")


@dataclass(frozen=True)
class Covariates:
    """Series beside the targets: ``past`` [count, length], ``future`` [count, length + horizon]."""

    past: Array
    future: Array


def forecast_series(
    session: Session,
    series: Any,
    horizon: int,
    *,
    together: bool = False,
    past_covariates: Any = None,
    future_covariates: Any = None,
    rollout: str = "carried",
    batch_size: int = 64,
) -> Forecast:
    """As ``pipeline.forecast``, by a session that is open."""
    info = session.manifest.forecast
    if info is None:
        raise BundleError(f"{session.bundle}: is no forecaster")
    if rollout not in get_args(Rollout):
        raise OptionError("rollout", f"{rollout} is not one of {', '.join(get_args(Rollout))}")
    for option, value in (("horizon", horizon), ("batch_size", batch_size)):
        if value < 1:
            raise OptionError(option, f"{value} is not 1 or more")
    rows = read_rows(series)
    has_covariates = past_covariates is not None or future_covariates is not None
    takes_several = any(tensor.name == GROUPS for tensor in session.manifest.inputs)
    if (together or has_covariates) and not takes_several:
        raise OptionError(
            "together" if together else "past_covariates",
            f"{session.manifest.family} forecasts every series by itself",
        )
    if not takes_several:
        quantiles = _alone(session, info, rows, horizon, rollout, batch_size)
        return Forecast(quantiles, info.levels, session)
    if horizon > info.horizon:
        raise OptionError("horizon", f"{horizon} is beyond the {info.horizon} steps of this model")
    if together or has_covariates:
        beside = _covariates(rows, horizon, past_covariates, future_covariates)
        quantiles = _together(session, np.stack(rows), horizon, beside)
    else:
        quantiles = np.concatenate(
            [_side_by_side(session, part, horizon) for part in _parts(rows, batch_size)]
        )
    return Forecast(quantiles, info.levels, session)


def read_rows(series: Any) -> list[Array]:
    """Every series float32 [length], from one [length], several [series, length], or a list.

    NaN is a missing value. Raises InputError.
    """
    if isinstance(series, Mapping):
        series = list(series.values())
    if isinstance(series, Sequence) and not isinstance(series, str):
        is_one = all(np.ndim(item) == 0 for item in series)
        rows = [as_numbers("series", series)] if is_one and len(series) else list(series)
    else:
        array = as_numbers("series", series)
        rows = [array] if array.ndim == 1 else list(array)
    found = []
    for number, row in enumerate(rows):
        values = as_numbers(f"series {number}", row)
        if values.ndim != 1 or not values.size:
            raise InputError(f"series {number}: shape {list(values.shape)}, expected [length]")
        if np.isinf(values).any():
            raise InputError(f"series {number}: holds infinite numbers")
        found.append(np.ascontiguousarray(values, np.float32))
    if not found:
        raise InputError("series: there is none")
    return found


def _alone(
    session: Session, info: ForecastInfo, rows: list[Array], horizon: int, rollout: str, size: int
) -> Array:
    step = _rerun if rollout == "rerun" else _carried
    parts = _parts(rows, size)
    found = [step(session, info, left_padded(part), horizon) for part in parts]
    return np.concatenate(found)[:, :horizon]


def _carried(session: Session, info: ForecastInfo, context: Array, horizon: int) -> Array:
    """[B, horizon or more, Q]: what is foretold is fed as missing, from the state before it."""
    outputs, states = session.run({CONTEXT: context})
    first = outputs["quantiles"]
    more = -(-(horizon - info.horizon) // info.patch)
    if more <= 0:
        return first
    unknown = np.full((len(context), more * info.patch), np.nan, np.float32)
    outputs, _ = session.run({CONTEXT: unknown}, states)
    return np.concatenate([first, outputs["quantiles"]], axis=1)


def _rerun(session: Session, info: ForecastInfo, context: Array, horizon: int) -> Array:
    """[B, horizon or more, Q]: every patch from the zero state, over context and missing values."""
    found: list[Array] = []
    while len(found) * info.patch < horizon:
        unknown = np.full((len(context), len(found) * info.patch), np.nan, np.float32)
        outputs, _ = session.run({CONTEXT: np.concatenate([context, unknown], axis=1)})
        found.append(outputs["quantiles"])
    return np.concatenate(found, axis=1)


def _side_by_side(session: Session, rows: list[Array], horizon: int) -> Array:
    """Each row the only target of a batch entry: [rows, horizon, Q]."""
    context = left_padded(rows)[:, None]
    batch, _, length = context.shape
    feeds = {
        CONTEXT: context,
        PAST: np.zeros((batch, 0, length), np.float32),
        FUTURE: np.zeros((batch, 0, length + horizon), np.float32),
        GROUPS: np.zeros((batch, 1), np.int64),
    }
    outputs, _ = session.run(feeds)
    return np.asarray(outputs["quantiles"][:, 0])


def _together(session: Session, targets: Array, horizon: int, beside: Covariates) -> Array:
    """All targets [count, length] in one batch entry, with covariates: [count, horizon, Q]."""
    variates = len(targets) + len(beside.past) + len(beside.future)
    feeds = {
        CONTEXT: targets[None],
        PAST: beside.past[None],
        FUTURE: beside.future[None],
        GROUPS: np.zeros((1, variates), np.int64),
    }
    outputs, _ = session.run(feeds)
    return np.asarray(outputs["quantiles"][0])


def _covariates(rows: list[Array], horizon: int, past: Any, future: Any) -> Covariates:
    """Checked against the targets, which are of one length then. Raises InputError."""
    length = len(rows[0])
    if any(len(row) != length for row in rows):
        raise InputError("series that are forecast together have one length; fill up with NaN")
    found = []
    for name, given, steps in (
        ("past_covariates", past, length), ("future_covariates", future, length + horizon),
    ):  # fmt: skip
        lines = [] if given is None else read_rows(given)
        wrong = next((line for line in lines if len(line) != steps), None)
        if wrong is not None:
            raise InputError(f"{name}: {len(wrong)} steps, expected {steps}")
        found.append(np.array(lines, np.float32).reshape(len(lines), steps))
    return Covariates(*found)


def left_padded(rows: list[Array]) -> Array:
    """Rows of several lengths as one array [rows, longest]: NaN comes before the first step."""
    longest = max(len(row) for row in rows)
    padded = np.full((len(rows), longest), np.nan, np.float32)
    for into, row in zip(padded, rows, strict=True):
        into[longest - len(row) :] = row
    return padded


def _parts(rows: list[Array], size: int) -> list[list[Array]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
