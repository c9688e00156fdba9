"""A long rollout with carried states: an error that grows with time shows at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xlstm_export.progress import Progress
from xlstm_export.runtime.session import Array, Runner, split_time
from xlstm_export.validation.checks.plan import Plan, takes_sequences
from xlstm_export.validation.inputs import rollout_inputs
from xlstm_export.validation.measures.tensor import TensorTally
from xlstm_export.validation.participants import Participants
from xlstm_export.validation.result import Check, Outcome
from xlstm_export.validation.tally import Tally, TensorResult, ratio

STEPS = 16_384
_PART = 256
_POINTS = 64


def check_drift(
    everyone: Participants, plan: Plan, progress: Progress | None = None
) -> tuple[Check, list[TensorResult]]:
    """16,384 steps in calls of 256, judged by the rule like any rollout.

    Exact is our float64 model; where upstream is there, the reader has been held to it before.
    """
    name = "drift over carried steps"
    if not takes_sequences(everyone):
        return Check(name, "skipped", "the model carries no states"), []
    if plan.budget != "full":
        return Check(name, "skipped", f"{STEPS} steps take --budget full"), []
    results = _rollout(everyone, plan, progress)
    worst = max(results, key=lambda result: ratio(result.judgement))
    part = ratio(worst.judgement)
    words = (
        f"{STEPS} steps with carried states: at most {part:.2g} of what the rule allows, "
        f"{worst.name.removeprefix('drift ')}"
    )
    series = {"output": _curve(results[0])}
    outcome: Outcome = "passed" if part <= 1 else "failed"
    return Check(name, outcome, words, series, "largest error, of the allowed"), results


def _rollout(everyone: Participants, plan: Plan, progress: Progress | None) -> list[TensorResult]:
    manifest, feed = everyone.manifest, everyone.manifest.inputs[0].name
    inputs = rollout_inputs(everyone.spec, 1, STEPS, plan.seed)
    runners: tuple[Runner, ...] = (
        everyone.subject, everyone.float64.in_form("chunkwise"), everyone.chunkwise,
        everyone.recurrent,
    )  # fmt: skip
    tallies: dict[str, Tally] = {}
    states: list[Any] = [None] * len(runners)
    end = 0
    for part in split_time(inputs, _PART):
        found = [who.run({feed: part}, old) for who, old in zip(runners, states, strict=True)]
        states = [state for _, state in found]
        end += part.shape[1]
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


def _curve(result: TensorResult) -> tuple[tuple[int, float], ...]:
    """The largest error of each stretch, in units of the rule, at its last step."""
    assert result.by_step is not None
    steps = np.array_split(np.asarray(result.by_step.steps), _POINTS)
    errors = np.array_split(np.asarray(result.by_step.largest), _POINTS)
    allowed = result.judgement.max_allowed or 1.0
    pairs = zip(steps, errors, strict=True)
    return tuple((int(s[-1]), float(e.max()) / allowed) for s, e in pairs if len(s))
