"""The checks of a validation, one after the other; what was done counts, also when interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from xlstm_export.errors import EngineError
from xlstm_export.progress import Progress
from xlstm_export.validation.checks.drift import DRIFT, check_drift
from xlstm_export.validation.checks.gates import check_gates
from xlstm_export.validation.checks.invariance import (
    check_batch,
    check_fork,
    check_padding,
    check_splits,
    check_threads,
)
from xlstm_export.validation.checks.plan import Plan
from xlstm_export.validation.checks.text import GREEDY, check_greedy, check_length
from xlstm_export.validation.participants import Participants, tell
from xlstm_export.validation.result import Check, Continuation, Location
from xlstm_export.validation.tally import Interrupted, TensorResult

_SIMPLE: dict[str, Callable[[Participants, Plan], Check]] = {
    "one call or many": check_splits,
    "alone or in a batch": check_batch,
    "what stands behind the end of a row": check_padding,
    "one thread or several": check_threads,
    "fork and restore": check_fork,
    "extreme gates": check_gates,
    "text, by position": check_length,
}
"""By the names that they give themselves."""


@dataclass
class Checked:
    """What the checks found, as far as they came; ``complete`` where none is missing."""

    checks: list[Check] = field(default_factory=list)
    results: list[TensorResult] = field(default_factory=list)
    continuations: tuple[Continuation, ...] = ()
    complete: bool = True


@dataclass
class Found:
    """What a comparison found, as far as it came; ``is_compared`` once the first rollout is."""

    results: list[TensorResult] = field(default_factory=list)
    is_compared: bool = False
    checked: Checked = field(default_factory=Checked)
    location: Location | None = None

    @contextmanager
    def until_interrupted(self) -> Iterator[None]:
        """A keyboard interrupt ends the block, and is an error only where nothing was found."""
        try:
            yield
        except KeyboardInterrupt as stop:
            self.checked.complete = False
            if isinstance(stop, Interrupted):
                self.results += stop.results
            if not self.results:
                raise


def run_checks(everyone: Participants, plan: Plan, progress: Progress | None) -> Checked:
    """Run all checks by ``plan``. A keyboard interrupt ends them, and is no error."""
    done = Checked()
    try:
        checks: dict[str, Callable[[], Check]] = {
            name: partial(run, everyone, plan) for name, run in _SIMPLE.items()
        }
        checks[GREEDY] = partial(_greedy, everyone, plan, done)
        checks[DRIFT] = partial(_drift, everyone, plan, done, progress)
        run_each(checks, done, progress)
    except KeyboardInterrupt:
        done.complete = False
    return done


def _greedy(everyone: Participants, plan: Plan, done: Checked) -> Check:
    check, done.continuations = check_greedy(everyone, plan)
    return check


def _drift(
    everyone: Participants, plan: Plan, done: Checked, progress: Progress | None
) -> Check:  # fmt: skip
    check, results = check_drift(everyone, plan, progress)
    done.results += results
    return check


def run_each(
    checks: Mapping[str, Callable[[], Check]], done: Checked, progress: Progress | None
) -> None:
    """Run ``checks``, by name, one after the other; ``done`` gets what each finds."""
    for name, check in checks.items():
        tell(progress, name)
        try:
            done.checks.append(check())
        except EngineError as error:  # it is built for other shapes
            done.checks.append(Check(name, "skipped", f"not run by this engine: {error}"))
