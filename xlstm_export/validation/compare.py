"""A carried rollout of two sessions, judged tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xlstm_export.runtime.session import Array, Session
from xlstm_export.validation.tolerance import Judgement, errors, judge

ROLLOUT = (7, 1, 1, 33, 1, 64, 1, 22)
"""Lengths of the calls of a rollout: prefill, decode and chunk borders, states carried on."""


@dataclass(frozen=True)
class TensorResult:
    """The worst judgement of one output or state over a rollout, and the call it fell on."""

    name: str
    kind: str
    call: int
    judgement: Judgement
    largest: float
    """Largest magnitude of the exact values, for scale."""


@dataclass(frozen=True)
class Panel:
    """The sessions of one comparison. ``recurrent`` and ``chunkwise`` share the subject's dtype."""

    subject: Session
    exact: Session
    recurrent: Session
    chunkwise: Session


def compare_rollout(
    panel: Panel,
    inputs: Array,
    calls: Sequence[int],
    *,
    dtype: str,
    output_name: str,
    last_only: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[TensorResult]:
    """Run ``calls`` steps at a time through every session, each carrying its own states.

    inputs: ids [B, sum(calls)] or embeddings [B, sum(calls), D]. ``dtype`` is that of the
    subject's projections; ``last_only``: the subject returns the last step of each call.
    Returns one result per output and state, the worst over the calls.
    """
    sessions = (panel.subject, panel.exact, panel.recurrent, panel.chunkwise)
    states: list[dict[str, Array] | None] = [None] * len(sessions)
    worst: dict[str, TensorResult] = {}
    start = 0
    for call, steps in enumerate(calls):
        part = inputs[:, start : start + steps]
        start += steps
        outputs = []
        for index, session in enumerate(sessions):
            output, states[index] = session.run(part, states[index])
            keep_all = index == 0 or not last_only
            outputs.append(output if keep_all else output[:, -1:])
        _keep_worst(worst, _judged(output_name, "output", call, outputs, dtype))
        for key in panel_keys(states[0]):
            tensors = [state[key] for state in states if state is not None]
            _keep_worst(worst, _judged(key, "state", call, tensors, dtype))
        if progress is not None:
            progress(call + 1, len(calls))
    return list(worst.values())


def panel_keys(states: dict[str, Array] | None) -> Sequence[str]:
    """Names of the carried states."""
    return list(states or ())


def _judged(name: str, kind: str, call: int, tensors: Sequence[Array], dtype: str) -> TensorResult:
    got, exact, recurrent, chunkwise = tensors
    # outputs and states are float32 tensors, but carry the rounding of the bundle's dtype
    judgement = judge(got, exact, recurrent, chunkwise, dtype if kind == "output" else "float32")
    return TensorResult(name, kind, call, judgement, float(np.abs(exact).max(initial=0.0)))


def _keep_worst(worst: dict[str, TensorResult], new: TensorResult) -> None:
    old = worst.get(new.name)
    if old is None or excess(new.judgement) > excess(old.judgement):
        worst[new.name] = new


def excess(judgement: Judgement) -> float:
    """Error over allowance, the larger of max and rms; above 1 the rule is broken."""
    pairs = (
        (judgement.max_error, judgement.max_allowed),
        (judgement.rms_error, judgement.rms_allowed),
    )
    return max(error / allowed if allowed > 0 else float(error > 0) for error, allowed in pairs)


def relative_distance(first: Session, second: Session, inputs: Array) -> float:
    """Largest difference of two sessions' outputs over ``inputs``, relative to the largest value.

    Used to show that the reader's float64 model and upstream's are one function.
    """
    a, _ = first.run(inputs, None)
    b, _ = second.run(inputs, None)
    return errors(a, b)[0] / max(float(np.abs(b).max(initial=0.0)), np.finfo(np.float64).tiny)
