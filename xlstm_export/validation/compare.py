"""A carried rollout of four sessions, judged tensor by tensor over all its calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from xlstm_export.model.manifest import Manifest
from xlstm_export.runtime.session import Array, Session
from xlstm_export.validation.tolerance import Errors, Judgement, errors, judge_errors, magnitude

ROLLOUT = (7, *[1] * 12, 33, *[1] * 12, 64, *[1] * 12, 2, 16)
"""Lengths of the calls of a rollout: prefills around chunk borders, stretches of decode, states
carried throughout. Every call is a sample of every state: with few, a maximum is a matter of luck.
"""

_RAGGED_STEPS = 80

Progress = Callable[[str, int, int], None]
RunRagged = Callable[[Array, None, Array], tuple[Array, dict[str, Array]]]


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
    manifest: Manifest,
    progress: Progress | None = None,
) -> list[TensorResult]:
    """Run ``calls`` steps at a time through every session, each carrying its own states.

    inputs: ids [B, sum(calls)] or embeddings [B, sum(calls), D]; ``manifest`` is the subject's.
    Returns one result per output and state.
    """
    sessions = (panel.subject, panel.exact, panel.recurrent, panel.chunkwise)
    states: list[dict[str, Array] | None] = [None] * len(sessions)
    output_name = manifest.outputs[0].name
    tallies = {output_name: _Tally("output")}
    start = 0
    for call, steps in enumerate(calls):
        part = inputs[:, start : start + steps]
        start += steps
        outputs = []
        for index, session in enumerate(sessions):
            output, states[index] = session.run(part, states[index])
            is_cut = manifest.logits == "last" and index > 0
            outputs.append(output[:, -1:] if is_cut else output)
        tallies[output_name].add(outputs)
        for key in states[0] or {}:
            tally = tallies.setdefault(key, _Tally("state"))
            tally.add([state[key] for state in states if state is not None])
        if progress is not None:
            progress("comparing", call + 1, len(calls))
    return [tally.result(name, manifest.dtype) for name, tally in tallies.items()]


def compare_ragged(
    panel: Panel, run_ragged: RunRagged, inputs: Array, manifest: Manifest
) -> list[TensorResult]:
    """One batch of rows of different lengths, against each row alone.

    ``run_ragged`` is the subject's ``run`` with lengths. Returns one result per output and state,
    named ``ragged {name}``.
    """
    steps = min(inputs.shape[1], _RAGGED_STEPS)
    rows = inputs.shape[0]
    lengths = np.array([steps - (row * steps) // (2 * rows) for row in range(rows)], np.int32)
    together, states = run_ragged(inputs[:, :steps], None, lengths)
    output_name = manifest.outputs[0].name
    tallies = {output_name: _Tally("output")} | {key: _Tally("state") for key in states}
    for row, length in enumerate(lengths):
        alone = [
            session.run(inputs[row : row + 1, :length], None)
            for session in (panel.exact, panel.recurrent, panel.chunkwise)
        ]
        valid = slice(-1, None) if manifest.logits == "last" else slice(0, length)
        own = (
            together[row : row + 1] if manifest.logits == "last" else together[row : row + 1, valid]
        )
        tallies[output_name].add([own, *(output[:, valid] for output, _ in alone)])
        for key in states:
            tallies[key].add([states[key][row : row + 1], *(state[key] for _, state in alone)])
    return [t.result(f"ragged {name}", manifest.dtype) for name, t in tallies.items()]


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
