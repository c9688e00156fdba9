"""Forecasts over HTTP have a time, wait in a bounded number, and end with who asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.generation.forecaster import ONE_BY_ONE
from tests.serving.service import Service, serving
from tests.serving.test_forecasts import Gated


@contextmanager
def gated(**limits: Any) -> Iterator[tuple[Service, Gated]]:
    """A service whose calls wait; they are let go at the end."""
    session = Gated(ONE_BY_ONE)
    with serving(session, **limits) as service:  # type: ignore[arg-type]
        try:
            yield service, session
        finally:
            session.gate.set()


def ask(service: Service, horizon: int = 1, **options: Any) -> httpx.Response:
    fields = {"series": [[1, 2, 3]], "horizon": horizon}
    return httpx.post(f"{service.address}/v1/forecast", json=fields, **{"timeout": 30, **options})


def asking(service: Service, session: Gated, horizon: int, waiting: int) -> threading.Thread:
    """A request, after which one is being computed and ``waiting`` wait."""
    thread = threading.Thread(target=ask, args=(service, horizon))
    thread.start()
    assert session.begun.wait(20)
    service.wait_until(0, waiting)
    return thread


def test_a_forecast_has_its_time() -> None:
    with gated(timeout=1) as (service, _):
        begun = time.monotonic()
        late = ask(service)
        assert (late.status_code, late.json()["error"]["type"]) == (504, "timeout")
        assert time.monotonic() - begun < 10


def test_who_comes_when_too_many_wait_is_told_so() -> None:
    with gated(max_waiting=1) as (service, session):
        threads = [asking(service, session, 1 + number, number) for number in range(2)]
        refused = ask(service)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        session.gate.set()
        for thread in threads:
            thread.join()
        assert ask(service).status_code == 200


def test_who_hangs_up_makes_room() -> None:
    with gated(max_waiting=1) as (service, session):
        first = asking(service, session, 1, 0)
        with pytest.raises(httpx.ReadTimeout):
            ask(service, 2, timeout=0.5)
        service.wait_until(0, 0)
        second = asking(service, session, 3, 1)
        session.gate.set()
        for thread in (first, second):
            thread.join()
        assert len(session.calls) == 2  # none for who has gone


def test_a_request_of_few_bytes_cannot_fill_the_memory() -> None:
    with gated() as (service, session):
        fields = {"series": [[1]] * 1024, "horizon": 100_000}
        refused = httpx.post(f"{service.address}/v1/forecast", json=fields)
        assert (refused.status_code, "262144 steps" in refused.text) == (400, True)
        assert not session.calls
