"""The checks of a validation, one after the other; what was done counts, also when interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from xlstm_export.progress import Progress
from xlstm_export.validation.checks.drift import check_drift
from xlstm_export.validation.checks.gates import check_gates
from xlstm_export.validation.checks.invariance import (
    check_batch,
    check_fork,
    check_padding,
    check_splits,
    check_threads,
)
from xlstm_export.validation.checks.plan import Plan
from xlstm_export.validation.checks.text import check_greedy, check_length
from xlstm_export.validation.participants import Participants, tell
from xlstm_export.validation.result import Check, Continuation
from xlstm_export.validation.tally import TensorResult

_SIMPLE: tuple[Callable[[Participants, Plan], Check], ...] = (
    check_splits, check_batch, check_padding, check_threads, check_fork, check_gates, check_length,
)  # fmt: skip


@dataclass
class Checked:
    """What the checks found, as far as they came; ``complete`` where none is missing."""

    checks: list[Check] = field(default_factory=list)
    results: list[TensorResult] = field(default_factory=list)
    continuations: tuple[Continuation, ...] = ()
    complete: bool = True


def run_checks(everyone: Participants, plan: Plan, progress: Progress | None) -> Checked:
    """Run all checks by ``plan``. A keyboard interrupt ends them, and is no error."""
    done = Checked()
    try:
        for check in _SIMPLE:
            tell(progress, check.__name__.removeprefix("check_"))
            done.checks.append(check(everyone, plan))
        tell(progress, "greedy tokens")
        greedy, done.continuations = check_greedy(everyone, plan)
        done.checks.append(greedy)
        drift, results = check_drift(everyone, plan, progress)
        done.checks.append(drift)
        done.results += results
    except KeyboardInterrupt:
        done.complete = False
    return done
