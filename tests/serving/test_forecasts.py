"""Forecasts of requests that wait at the same time: one call for all, and each gets its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future, wait
from typing import Any

import numpy as np
import pytest

from tests.generation.forecaster import ONE_BY_ONE, TOGETHER, Sums
from xlstm_export.bundle.manifest import Manifest
from xlstm_export.errors import InputError, OptionError
from xlstm_export.runtime.session import Array
from xlstm_export.serving import forecasts as module
from xlstm_export.serving.forecasts import Forecasts
from xlstm_export.serving.metrics import Metrics
from xlstm_export.serving.worker import BusyError


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


def opened(session: Any, most_rows: int = 64, most_waiting: int = 64) -> Forecasts:
    return Forecasts(session, most_rows, most_waiting, Metrics())


def alone(*series: Array, horizon: int) -> Array:
    return opened(Sums(ONE_BY_ONE)).submit(list(series), horizon, False).result(20)


def ask_while_busy(
    session: Gated, most_rows: int, *asked: tuple[list[Array], int, bool]
) -> list[Future[Array]]:
    """The first is being computed while the others come to wait, in order; all are done."""
    forecasts = opened(session, most_rows)
    found = []
    for request in asked:
        found.append(forecasts.submit(*request))
        assert session.begun.wait(20)  # the first waits no more
    session.gate.set()
    wait(found, 20)
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


def test_so_many_wait_and_who_cancels_makes_room(session: Gated) -> None:
    forecasts = opened(session, most_waiting=2)
    one = [row(1, 2)]
    first = forecasts.submit(one, 1, False)
    assert session.begun.wait(20)
    waiting = [forecasts.submit(one, horizon, False) for horizon in (2, 3)]
    with pytest.raises(BusyError):
        forecasts.submit(one, 4, False)
    assert not first.cancel()  # it is being computed
    assert waiting[0].cancel()
    last = forecasts.submit(one, 4, False)
    session.gate.set()
    assert [f.result(20).shape[1] for f in (first, waiting[1], last)] == [1, 3, 4]
    forecasts.submit(one, 1, False).result(20)
    assert len(session.calls) == 4  # none for who has gone


def test_none_may_wait(session: Gated) -> None:
    forecasts = opened(session, most_waiting=0)
    first = forecasts.submit([row(1)], 1, False)
    assert session.begun.wait(20)
    with pytest.raises(BusyError):
        forecasts.submit([row(1)], 1, False)
    session.gate.set()
    first.result(20)
    forecasts.stop()


def test_who_waits_at_the_end_is_cancelled(session: Gated) -> None:
    forecasts = opened(session)
    first = forecasts.submit([row(1)], 1, False)
    assert session.begun.wait(20)
    second = forecasts.submit([row(1)], 1, False)
    stopping = threading.Thread(target=forecasts.stop)
    stopping.start()
    with pytest.raises(CancelledError):
        second.result(20)
    session.gate.set()
    stopping.join(20)
    assert first.result(20).shape[:2] == (1, 1)


@pytest.mark.parametrize(
    ("count", "length", "horizon", "words"),
    [
        (1024, 1, 100_000, "1024 of horizon 100000 are more than 262144 steps"),
        (1000, 20_000, 1, "1000, filled up to 20000 values, are more than 16777216"),
    ],
)
def test_few_bytes_cannot_ask_for_much(
    session: Gated, count: int, length: int, horizon: int, words: str
) -> None:
    rows = [row(1)] * (count - 1) + [np.zeros(length, np.float32)]
    with pytest.raises(InputError, match=words):
        opened(session).submit(rows, horizon, False)


def test_what_is_too_much_in_one_call_waits_for_another(
    session: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_VALUES", 20)
    long, short = [np.ones(15, np.float32)], [row(1)]
    found = ask_while_busy(
        session, 64, (short, 1, False), (long, 1, False), (short, 1, False), (short, 1, False)
    )
    assert [len(call["context"]) for call in session.calls] == [1, 1, 2]
    assert all(f.result().shape[:2] == (1, 1) for f in found)
