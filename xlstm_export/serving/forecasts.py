"""Forecasts of requests that wait at the same time, computed in one call."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from xlstm_export.generation.forecast import forecast_series
from xlstm_export.runtime.session import Array, Session


@dataclass(eq=False)
class _Asked:
    rows: list[Array]
    horizon: int
    together: bool
    quantiles: Array | None = None
    """Of every row, once somebody has computed them: [rows, horizon, levels]."""

    def goes_with(self, other: _Asked) -> bool:
        return self.horizon == other.horizon and not (self.together or other.together)


class Forecasts:
    """Forecasts by ``session``, one call at a time; any thread may ask.

    ONNX Runtime takes every core for one call, and many rows cost little more than one. So
    whoever's turn it is computes at once for all who wait for forecasts of the same length, up to
    ``most_rows`` rows. A row is forecast by itself, whoever else is in the call.
    """

    def __init__(self, session: Session, most_rows: int) -> None:
        self._session = session
        self._most_rows = most_rows
        self._waiting: list[_Asked] = []
        self._changing = threading.Lock()
        self._turn = threading.Lock()

    def quantiles(self, rows: list[Array], horizon: int, together: bool) -> Array:
        """Quantiles [rows, horizon, levels] of series float32 [length], NaN where one is missing.

        Raises what ``pipeline.forecast`` does.
        """
        own = _Asked(rows, horizon, together)
        with self._changing:
            self._waiting.append(own)
        with self._turn:
            if own.quantiles is None:
                self._compute(self._taken(own))
        assert own.quantiles is not None
        return own.quantiles

    def _taken(self, own: _Asked) -> list[_Asked]:
        """``own`` and those that go with it, who wait no more."""
        with self._changing:
            taken, count = [own], len(own.rows)
            for asked in self._waiting:
                fits = count + len(asked.rows) <= self._most_rows
                if asked is not own and asked.goes_with(own) and fits:
                    taken.append(asked)
                    count += len(asked.rows)
            self._waiting = [asked for asked in self._waiting if asked not in taken]
        return taken

    def _compute(self, taken: list[_Asked]) -> None:
        own, rows = taken[0], [row for asked in taken for row in asked.rows]
        try:
            made = forecast_series(self._session, rows, own.horizon, together=own.together)
        except Exception:
            if len(taken) == 1:
                raise
            # one of them is wrong: each is computed alone, the others when their turn comes
            with self._changing:
                self._waiting.extend(taken[1:])
            self._compute(taken[:1])
            return
        start = 0
        for asked in taken:
            asked.quantiles = made.quantiles[start : start + len(asked.rows)]
            start += len(asked.rows)
