"""Forecasts of requests that wait at the same time: one call for all, and each gets its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.generation.forecaster import ONE_BY_ONE, TOGETHER, Sums
from xlstm_export.bundle.manifest import Manifest
from xlstm_export.errors import OptionError
from xlstm_export.runtime.session import Array
from xlstm_export.serving.forecasts import Forecasts


class Gated(Sums):
    """Every call waits for the gate."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.begun, self.gate = threading.Event(), threading.Event()

    def run(
        self, feeds: Mapping[str, Any], states: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        self.begun.set()
        assert self.gate.wait(20)
        return super().run(feeds, states)


@pytest.fixture
def session() -> Gated:
    return Gated(ONE_BY_ONE)


def row(*values: float) -> Array:
    return np.array(values, np.float32)


def alone(*series: Array, horizon: int) -> Array:
    return Forecasts(Sums(ONE_BY_ONE), 64).quantiles(list(series), horizon, False)  # type: ignore[arg-type]


def ask_while_busy(
    session: Gated, most_rows: int, *asked: tuple[list[Array], int, bool]
) -> list[Future[Array]]:
    """The first is being computed while the others come to wait, in order."""
    forecasts = Forecasts(session, most_rows)  # type: ignore[arg-type]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = []
        for count, request in enumerate(asked):
            found.append(pool.submit(forecasts.quantiles, *request))
            assert session.begun.wait(20)
            deadline = time.monotonic() + 20
            while len(forecasts._waiting) != count:  # the first waits no more
                assert time.monotonic() < deadline
                time.sleep(0.001)
        session.gate.set()
    return found


def test_those_who_wait_are_computed_in_one_call(session: Gated) -> None:
    series = [row(1, 2, 3), row(4), row(5, 6, 7, 8, 9), row(1, 1)]
    found = ask_while_busy(
        session, 64, ([series[0]], 2, False), ([series[1]], 2, False), (series[2:], 2, False)
    )
    assert [len(call["context"]) for call in session.calls] == [1, 3]
    np.testing.assert_allclose(found[0].result(), alone(series[0], horizon=2))
    np.testing.assert_allclose(found[1].result(), alone(series[1], horizon=2))
    np.testing.assert_allclose(found[2].result(), alone(*series[2:], horizon=2))


def test_other_horizons_and_too_many_rows_wait_for_another_call(session: Gated) -> None:
    one = [row(1, 2)]
    asked = [(one, 1, False), (one, 1, False), (one, 2, False), (one * 2, 1, False)]
    found = ask_while_busy(session, 2, *asked)
    assert sorted(len(call["context"]) for call in session.calls) == [1, 1, 1, 2]
    assert [f.result().shape[:2] for f in found] == [(1, 1), (1, 1), (1, 2), (2, 1)]


def test_series_that_see_each_other_are_computed_by_themselves() -> None:
    session = Gated(TOGETHER)
    pair = [row(1, 2), row(3, 4)]
    found = ask_while_busy(session, 64, (pair, 1, True), (pair, 1, True), ([row(5)], 1, False))
    assert sorted(call["context"].shape[:2] for call in session.calls) == [(1, 1), (1, 2), (1, 2)]
    assert all(f.result().shape[1] == 1 for f in found)


def test_what_fails_fails_alone(session: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Gated.run

    def broken(self: Gated, feeds: Mapping[str, Any], states: Any = None) -> Any:
        if (feeds["context"] == 13).any():
            raise OptionError("series", "holds 13")
        return run(self, feeds, states)

    monkeypatch.setattr(Gated, "run", broken)
    found = ask_while_busy(
        session, 64, ([row(1)], 1, False), ([row(13)], 1, False), ([row(2)], 1, False)
    )
    np.testing.assert_allclose(found[2].result(), alone(row(2), horizon=1))
    with pytest.raises(OptionError, match="holds 13"):
        found[1].result()
