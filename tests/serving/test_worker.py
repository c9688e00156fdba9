"""What goes wrong with one job ends that job alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

import xlstm_export as xe
from tests.generation.own_model import speaker
from xlstm_export.generation.continuation import Continuation, Limits
from xlstm_export.generation.prompt import Prompt
from xlstm_export.generation.sampling import Sampling
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.serving.metrics import Metrics
from xlstm_export.serving.worker import Event, Job, Worker

TOKENS = 30


class Heard:
    """A job and what it is told."""

    def __init__(self, ids: Sequence[int], codec: Any = None) -> None:
        self.events: list[Event] = []
        self.ended = threading.Event()
        made = Continuation(Prompt(tuple(ids), None, codec), Limits(TOKENS), Sampling())
        self.job = Job(made, self._tell)

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        if event.is_last:
            self.ended.set()

    @property
    def error(self) -> str:
        """Of its last event."""
        assert self.ended.wait(20)
        return self.events[-1].error


class Broken:
    """A tokenizer that fails after some tokens."""

    def __init__(self, error: Exception) -> None:
        self.error, self.calls = error, 0

    def decode(self, ids: Sequence[int]) -> str:
        self.calls += 1
        if self.calls > 9:
            raise self.error
        return "x" * len(ids)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> OrtSession:
    """Of a network of one's own, whose manifest tells no vocabulary: it has 11 ids."""
    made = OrtSession(speaker(tmp_path_factory.mktemp("worker") / "out", states=True), threads=1)
    made.most_steps = 4
    assert made.manifest.vocabulary is None
    return made


@contextmanager
def working(session: OrtSession) -> Iterator[Worker]:
    worker = Worker(session, 8, 8, Metrics())
    try:
        yield worker
    finally:
        worker.stop()


def alone(session: OrtSession, ids: list[int]) -> list[int]:
    (made,) = xe.generate_many(session, [ids], max_new_tokens=TOKENS)
    return made.ids


@pytest.mark.parametrize(
    ("ids", "words"),
    [([1, 2, 3, 4, 99], "outside the vocabulary"), ([-1], "token id -1")],
    ids=["told by ONNX Runtime, in the second piece", "told as it joins"],
)
def test_a_prompt_that_cannot_be_computed(session: OrtSession, ids: list[int], words: str) -> None:
    with working(session) as worker:
        several = [Heard([1, 2]), Heard(ids), Heard([3, 4, 5, 6, 7])]
        worker.submit(*(heard.job for heard in several))
        assert words in several[1].error
        assert several[1].events[-1].is_unfit
        for heard, prompt in ((several[0], [1, 2]), (several[2], [3, 4, 5, 6, 7])):
            assert not heard.error
            assert heard.job.made.ids == alone(session, prompt)
        assert worker.is_alive


@pytest.mark.parametrize(
    ("error", "words"), [(Exception("no prefix"), "no prefix"), (KeyError(), "KeyError")]
)
def test_a_text_that_cannot_be_made(session: OrtSession, error: Exception, words: str) -> None:
    with working(session) as worker:
        several = [Heard([1, 2]), Heard([1], Broken(error))]
        worker.submit(*(heard.job for heard in several))
        assert several[1].error == words
        assert not several[0].error
        assert several[0].job.made.ids == alone(session, [1, 2])


def test_rows_that_cannot_be_computed(session: OrtSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them end, and the next is answered."""
    with working(session) as worker:
        with monkeypatch.context() as patch:
            patch.setattr(session, "choose", lambda *_: 1 / 0)
            several = [Heard([1, 2]), Heard([3])]
            worker.submit(*(heard.job for heard in several))
            assert all("could not be computed" in heard.error for heard in several)
            assert not any(heard.events[-1].is_unfit for heard in several)
        more = Heard([1, 2])
        worker.submit(more.job)
        assert not more.error
