"""Forecasts of requests that wait at the same time, computed in one call."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from xlstm_export.errors import InputError
from xlstm_export.generation.forecast import forecast_series
from xlstm_export.runtime.session import Array, Session
from xlstm_export.serving.metrics import Metrics
from xlstm_export.serving.worker import BusyError

MOST_STEPS = 1 << 18
"""Series of one call times their horizon: each is a number for every level, in memory as in JSON,
and a request of few bytes may ask for any number of them."""
MOST_VALUES = 1 << 24
"""Series of one call times the longest, to which the others are filled up."""


@dataclass(eq=False)
class _Asked:
    rows: list[Array]
    horizon: int
    together: bool
    quantiles: Future[Array] = field(default_factory=Future)
    """Of every row: [rows, horizon, levels]."""

    def goes_with(self, other: _Asked) -> bool:
        return self.horizon == other.horizon and not (self.together or other.together)


class Forecasts:
    """Forecasts by ``session``, one call at a time, in a thread of its own; any thread may ask.

    ONNX Runtime takes every core for one call, and many rows cost little more than one. So who has
    waited longest is computed together with all who wait for forecasts of the same length, up to
    ``most_rows`` rows. A row is forecast by itself, whoever else is in the call. ``most_waiting``
    requests wait beside those that are computed.
    """

    def __init__(
        self, session: Session, most_rows: int, most_waiting: int, metrics: Metrics
    ) -> None:
        self._session = session
        self._most_rows = most_rows
        self._most_waiting = most_waiting
        self._metrics = metrics
        self._waiting: list[_Asked] = []
        self._is_computing = False
        self._changing = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="xlstm-forecasts")

    def submit(self, rows: list[Array], horizon: int, together: bool) -> Future[Array]:
        """Quantiles [rows, horizon, levels] of series float32 [length], NaN where one is missing.

        Who cancels waits no more. The future has what ``pipeline.forecast`` raises. Raises
        InputError for more than fits into one call, BusyError.
        """
        check_size(rows, horizon)
        asked = _Asked(rows, horizon, together)
        with self._changing:
            if len(self._waiting) + self._is_computing > self._most_waiting:
                raise BusyError
            self._waiting.append(asked)
            self._metrics.waiting.set(len(self._waiting))
        asked.quantiles.add_done_callback(self._end)
        self._thread.submit(self._turn)
        return asked.quantiles

    def stop(self) -> None:
        """Compute nothing more: who still waits is cancelled."""
        with self._changing:
            waiting = list(self._waiting)
        for asked in waiting:
            asked.quantiles.cancel()
        self._thread.shutdown()

    def _end(self, _: Future[Array]) -> None:
        with self._changing:
            self._forget_cancelled()

    def _turn(self) -> None:
        """Computes for the first who waits, and those that go with it."""
        taken = self._taken()
        if taken:
            self._compute(taken)
        with self._changing:
            self._is_computing = False

    def _taken(self) -> list[_Asked]:
        """They wait no more; none where all were computed with others, or have gone."""
        with self._changing:
            taken: list[_Asked] = []
            for asked in self._waiting:
                fits = not taken or (asked.goes_with(taken[0]) and self._fit([*taken, asked]))
                if fits and asked.quantiles.set_running_or_notify_cancel():
                    taken.append(asked)
            self._waiting = [asked for asked in self._waiting if asked not in taken]
            self._is_computing = bool(taken)
            self._forget_cancelled()
        return taken

    def _fit(self, several: Sequence[_Asked]) -> bool:
        """Whether they are few enough for one call."""
        rows = [row for asked in several for row in asked.rows]
        return len(rows) <= self._most_rows and not _excess(rows, several[0].horizon)

    def _forget_cancelled(self) -> None:
        self._waiting = [asked for asked in self._waiting if not asked.quantiles.cancelled()]
        self._metrics.waiting.set(len(self._waiting))

    def _compute(self, taken: list[_Asked]) -> None:
        first, rows = taken[0], [row for asked in taken for row in asked.rows]
        try:
            made = forecast_series(self._session, rows, first.horizon, together=first.together)
        except Exception as error:
            if len(taken) == 1:
                first.quantiles.set_exception(error)
                return
            for asked in taken:  # one of them is wrong, which the others are not to hear of
                self._compute([asked])
            return
        start = 0
        for asked in taken:
            asked.quantiles.set_result(made.quantiles[start : start + len(asked.rows)])
            start += len(asked.rows)


def check_size(rows: Sequence[Array], horizon: int) -> None:
    """Raise InputError where series and horizon are more than one call may be asked for."""
    excess = _excess(rows, horizon)
    if excess:
        raise InputError(f"series: {excess}; ask for fewer series at once")


def _excess(rows: Sequence[Array], horizon: int) -> str:
    """What is too much; nothing where all fits."""
    longest = max(len(row) for row in rows)
    if len(rows) * horizon > MOST_STEPS:
        return f"{len(rows)} of horizon {horizon} are more than {MOST_STEPS} steps"
    if len(rows) * longest > MOST_VALUES:
        return f"{len(rows)}, filled up to {longest} values, are more than {MOST_VALUES}"
    return ""
