"""The one thread that steps a StepBatch: jobs wait, join, are told of their tokens, and leave."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from xlstm_export.errors import InputError
from xlstm_export.generation.continuation import Continuation, End
from xlstm_export.generation.generate import advance
from xlstm_export.runtime.choice import Choice
from xlstm_export.runtime.session import Array, Session
from xlstm_export.runtime.step_batch import StepBatch
from xlstm_export.serving.metrics import Metrics


@dataclass(frozen=True)
class Event:
    """What has become of a job: new text, and at its end why it ended, or what went wrong."""

    text: str = ""
    end: End | None = None
    error: str = ""
    is_unfit: bool = False
    """Whether the error is in what was asked for."""

    @property
    def is_last(self) -> bool:
        """Whether no event follows."""
        return self.end is not None or bool(self.error)


@dataclass(eq=False)
class Job:
    """A continuation somebody waits for; ``tell`` is called in the worker's thread."""

    made: Continuation
    tell: Callable[[Event], None]
    begun: float = field(default_factory=time.monotonic)


class BusyError(Exception):
    """As many jobs wait as may wait."""


class Worker:
    """Owns ``session`` and a StepBatch of it; every public method may be called by any thread.

    At most ``most_rows`` jobs step together and ``most_waiting`` more wait.
    """

    def __init__(
        self, session: Session, most_rows: int, most_waiting: int, metrics: Metrics
    ) -> None:
        self._session = session
        self._most_rows = most_rows
        self._most_waiting = most_waiting
        self._metrics = metrics
        self._batch = StepBatch(session, most_rows)
        self._there: dict[int, Job] = {}
        self._waiting: deque[Job] = deque()
        self._dropped: set[Job] = set()
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="xlstm-worker", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it takes jobs and steps them."""
        return self._thread.is_alive() and not self._stopped

    def submit(self, *jobs: Job) -> None:
        """Let all of ``jobs`` wait for their turn, or none. Raises BusyError."""
        with self._changed:
            free = self._most_rows + self._most_waiting - len(self._there) - len(self._waiting)
            if self._stopped or len(jobs) > free:
                raise BusyError
            self._waiting.extend(jobs)
            self._changed.notify()

    def drop(self, *jobs: Job) -> None:
        """Nobody waits for ``jobs`` any more; those that have ended are left alone."""
        with self._changed:
            self._dropped.update(jobs)
            self._changed.notify()

    def stop(self) -> None:
        """End every job with an error, and the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._take_in():
            try:
                self._step()
            except Exception as error:  # whatever the session raises
                self._blame(error)
        self._fail("the service is stopping")

    def _take_in(self) -> bool:
        """Drop and admit jobs, waiting where there is nothing to step; False: stop."""
        with self._changed:
            while not self._stopped:
                self._drop_now()
                while self._waiting and len(self._batch) < self._most_rows:
                    self._join(self._waiting.popleft())
                self._metrics.rows.set(len(self._there))
                self._metrics.waiting.set(len(self._waiting))
                if self._there:
                    return True
                self._changed.wait()
            return False

    def _join(self, job: Job) -> None:
        try:
            self._there[self._batch.join(job.made.prompt.ids)] = job
        except InputError as error:
            job.tell(Event(error=str(error), is_unfit=True))

    def _drop_now(self) -> None:
        if not self._dropped:
            return
        for row in [row for row, job in self._there.items() if job in self._dropped]:
            self._leave(row)
        self._waiting = deque(job for job in self._waiting if job not in self._dropped)
        self._dropped.clear()

    def _step(self) -> None:
        tokens = {row: self._there[row].made.ids[-1] for row in self._batch.rows}
        with self._metrics.step_seconds.time():
            found = advance(self._batch, tokens, (job.made for job in self._there.values()))
        for row, given in found.items():
            self._tell(row, self._there[row], given)

    def _tell(self, row: int, job: Job, found: Array | Choice) -> None:
        """One token more of ``job``; what goes wrong with its logits or text is its own matter."""
        try:
            text = job.made.take(found)
        except Exception as error:  # whatever a tokenizer raises, too
            self._leave(row)
            job.tell(Event(error=str(error) or type(error).__name__))
            return
        if len(job.made.ids) == 1:
            self._metrics.first_token_seconds.observe(time.monotonic() - job.begun)
        self._metrics.tokens.inc()
        if job.made.end is not None:
            self._leave(row)
        job.tell(Event(text, job.made.end))

    def _leave(self, row: int) -> None:
        self._batch.leave(row)
        del self._there[row]

    def _blame(self, error: Exception) -> None:
        """A step went wrong, which changed nothing: end who joins with it, and try without.

        Its prompt is what was new. Where nobody joins, the rows themselves cannot be computed.
        """
        reason, joining = f"the model could not be computed ({error})", self._batch.joining
        if not joining:
            self._fail(reason)
            return
        job, is_unfit = self._there[joining[0]], isinstance(error, InputError)
        self._leave(joining[0])
        job.tell(Event(error=str(error) if is_unfit else reason, is_unfit=is_unfit))

    def _fail(self, reason: str) -> None:
        """End every job there is; a new batch begins."""
        with self._changed:
            jobs = [*self._there.values(), *self._waiting]
            self._there.clear()
            self._waiting.clear()
            self._batch = StepBatch(self._session, self._most_rows)
        for job in jobs:
            job.tell(Event(error=reason))
