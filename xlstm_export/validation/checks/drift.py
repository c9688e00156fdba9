"""A long rollout with carried states: an error that grows with time shows at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlstm_export.progress import Progress
from xlstm_export.runtime.session import Array, Runner, split_time
from xlstm_export.validation.checks.plan import Plan, takes_sequences
from xlstm_export.validation.checks.rollout import steps_of
from xlstm_export.validation.inputs import Feeds, rollout_inputs
from xlstm_export.validation.measures.tensor import StepErrors, TensorTally
from xlstm_export.validation.participants import Both, Participants
from xlstm_export.validation.result import Check, Outcome
from xlstm_export.validation.tally import Tally, TensorResult, middle_of_samples, ratio

DRIFT = "drift over carried steps"
STEPS = 16_384
_PART = 256
_POINTS = 64


def check_drift(
    everyone: Participants, plan: Plan, progress: Progress | None = None
) -> tuple[Check, list[TensorResult]]:
    """16,384 steps in calls of 256, judged by the rule like any rollout: of one row, so that one
    beyond it is repeated.

    Exact is our float64 model; where upstream is there, the reader has been held to it before.
    """
    name = DRIFT
    if not takes_sequences(everyone):
        return Check(name, "skipped", "the model carries no states"), []
    if plan.budget != "full":
        return Check(name, "skipped", f"{STEPS} steps take --budget full"), []
    results = middle_of_samples(
        lambda seed: _rollout(everyone, seed, progress), plan.seed, everyone.notes
    )
    return judge_drift(results), results


def drift_calls(everyone: Participants | Both, seed: int) -> list[Feeds]:
    """The calls of the rollout, of one row."""
    spec = everyone.checkpoint.spec
    inputs = rollout_inputs(spec, 1, STEPS, seed)
    return [{spec.inputs[0].name: part} for part in split_time(inputs, _PART)]


def judge_drift(results: Sequence[TensorResult]) -> Check:
    """What ``results`` of outputs, the first of them, and states say."""
    worst = max(results, key=lambda result: ratio(result.judgement))
    part, by_step = ratio(worst.judgement), results[0].by_step
    assert by_step is not None
    words = (
        f"{by_step.steps[-1]} steps with carried states: at most {part:.2g} of what the rule "
        f"allows, {worst.name.removeprefix('drift ')}"
    )
    series = {"output": _curve(by_step, results[0].judgement.max_allowed)}
    outcome: Outcome = "passed" if part <= 1 else "failed"
    return Check(DRIFT, outcome, words, series, "largest error, of the allowed")


def _rollout(everyone: Participants, seed: int, progress: Progress | None) -> list[TensorResult]:
    manifest = everyone.manifest
    runners: tuple[Runner, ...] = (
        everyone.subject, everyone.float64.in_form("chunkwise"), everyone.chunkwise,
        everyone.recurrent,
    )  # fmt: skip
    tallies: dict[str, Tally] = {}
    states: list[Any] = [None] * len(runners)
    end = 0
    for call in drift_calls(everyone, seed):
        found = [who.run(call, old) for who, old in zip(runners, states, strict=True)]
        states = [state for _, state in found]
        end += steps_of(call)
        for kind, tensors in (("output", [o for o, _ in found]), ("state", states)):
            _add(tallies, kind, manifest.logits == "last", tensors, end)
        if progress is not None:
            progress("drift", end, STEPS, "steps")
    return [
        tally.result(f"drift {n}", _kind(manifest, n), _dtype(manifest, n))
        for n, tally in tallies.items()
    ]


def _add(
    tallies: dict[str, Tally], kind: str, last: bool, tensors: list[Mapping[str, Array]], end: int
) -> None:
    for name in tensors[0]:
        got, exact, chunkwise, recurrent = (np.asarray(tensor[name]) for tensor in tensors)
        if kind == "output" and last:
            exact, chunkwise, recurrent = (x[:, -1:] for x in (exact, chunkwise, recurrent))
        tally = tallies.setdefault(name, Tally(tensor=TensorTally(kind == "output")))
        tally.add([got, exact, exact, recurrent, chunkwise], end)


def _kind(manifest: Any, name: str) -> str:
    return "state" if any(state.key == name for state in manifest.states) else "output"


def _dtype(manifest: Any, name: str) -> str:
    return "float32" if _kind(manifest, name) == "state" else str(manifest.dtype)


def _curve(by_step: StepErrors, max_allowed: float) -> tuple[tuple[int, float], ...]:
    """The largest error of each stretch, in units of the rule, at its last step."""
    steps = np.array_split(np.asarray(by_step.steps), _POINTS)
    errors = np.array_split(np.asarray(by_step.largest), _POINTS)
    allowed = max_allowed or 1.0
    pairs = zip(steps, errors, strict=True)
    return tuple((int(s[-1]), float(e.max()) / allowed) for s, e in pairs if len(s))
