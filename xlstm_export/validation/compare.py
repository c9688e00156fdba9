"""A carried rollout of four sessions, judged tensor by tensor over all its calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from xlstm_export.runtime.session import Array, Session
from xlstm_export.validation.tolerance import Errors, Judgement, errors, judge_errors, magnitude

ROLLOUT = (7, 1, 1, 33, 1, 64, 1, 22)
"""Lengths of the calls of a rollout: prefill, decode and chunk borders, states carried on."""


@dataclass(frozen=True)
class TensorResult:
    """The judgement of one output or state over a rollout.

    ``errors_by_call`` is the largest error of each call: where a drift would show.
    """

    name: str
    kind: str
    judgement: Judgement
    magnitude: float
    errors_by_call: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """The sessions of one comparison; the yardsticks compute in the subject's dtype."""

    subject: Session
    exact: Session
    recurrent: Session
    chunkwise: Session


@dataclass
class _Tally:
    """Errors of the subject and the yardsticks in one tensor, added up call by call."""

    kind: str
    totals: list[Errors] = field(default_factory=lambda: [Errors()] * 3)
    by_call: list[float] = field(default_factory=list)
    largest: float = 0.0

    def add(self, tensors: Sequence[Array]) -> None:
        got, exact, *yardsticks = tensors
        new = [errors(tensor, exact) for tensor in (got, *yardsticks)]
        self.totals = [old + more for old, more in zip(self.totals, new, strict=True)]
        self.by_call.append(new[0].largest)
        self.largest = max(self.largest, magnitude(exact))

    def result(self, name: str, dtype: str) -> TensorResult:
        # states are float32 in every bundle; outputs carry the rounding of its dtype
        precision = dtype if self.kind == "output" else "float32"
        judgement = judge_errors(self.totals[0], self.totals[1:], self.largest, precision)
        return TensorResult(name, self.kind, judgement, self.largest, tuple(self.by_call))


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
    Returns one result per output and state.
    """
    sessions = (panel.subject, panel.exact, panel.recurrent, panel.chunkwise)
    states: list[dict[str, Array] | None] = [None] * len(sessions)
    tallies = {output_name: _Tally("output")}
    start = 0
    for call, steps in enumerate(calls):
        part = inputs[:, start : start + steps]
        start += steps
        outputs = []
        for index, session in enumerate(sessions):
            output, states[index] = session.run(part, states[index])
            outputs.append(output[:, -1:] if last_only and index > 0 else output)
        tallies[output_name].add(outputs)
        for key in states[0] or {}:
            tally = tallies.setdefault(key, _Tally("state"))
            tally.add([state[key] for state in states if state is not None])
        if progress is not None:
            progress(call + 1, len(calls))
    return [tally.result(name, dtype) for name, tally in tallies.items()]


def share(judgement: Judgement) -> float:
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
    return errors(a, b).largest / (magnitude(b) or 1.0)
