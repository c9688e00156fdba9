"""A carried rollout of four sessions, judged tensor by tensor over all its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from xlstm_export.model.manifest import Manifest
from xlstm_export.runtime.session import Array, Session
from xlstm_export.validation.tolerance import Errors, Judgement, errors, judge_errors, magnitude

ROLLOUT = (7, *[1] * 12, 33, *[1] * 12, 64, *[1] * 12, 2, 16)
"""Lengths of the calls of a rollout: prefills around chunk borders, stretches of decode, states
carried throughout. Every call is a sample of every state: with few, a maximum is a matter of luck.
"""

WITNESSES = 6
"""Rows that the yardsticks run beside the subject's: their largest error is a rare event, and too
few rows would make the allowance a matter of luck."""

_RAGGED_STEPS = 80

Progress = Callable[[str, int, int], None]
RunRagged = Callable[[Array, None, Array], tuple[Array, Mapping[str, Array]]]


@dataclass(frozen=True)
class BestToken:
    """How often the likeliest token is the exact one, as parts of ``positions``.

    ``torch`` is the recurrent yardstick: PyTorch in the subject's precision, on more rows.
    """

    positions: int
    subject: float
    torch: float


@dataclass(frozen=True)
class TensorResult:
    """The judgement of one output or state over a rollout.

    ``errors_by_call`` is the largest error of each call: where a drift would show. ``finite`` is
    False where the subject computed NaN or infinity. ``best_token`` is of logits alone.
    """

    name: str
    kind: str
    judgement: Judgement
    magnitude: float
    errors_by_call: tuple[float, ...]
    finite: bool = True
    best_token: BestToken | None = None


@dataclass(frozen=True)
class Panel:
    """The sessions of one comparison.

    ``exact`` is what the subject is held to; ``own`` is our float64 model, what the yardsticks,
    which compute in the subject's dtype, are held to. The two are one function if the reader is
    right; a fault it shares with the yardsticks must not widen what they allow.
    """

    subject: Session
    exact: Session
    own: Session
    recurrent: Session
    chunkwise: Session


@dataclass
class Tally:
    """Errors of the subject and the yardsticks in one tensor, added up call by call."""

    totals: list[Errors] = field(default_factory=list)
    by_call: list[float] = field(default_factory=list)
    largest: float = 0.0
    finite: bool = True
    is_logits: bool = False
    best: list[tuple[Array, Array]] = field(default_factory=list)

    def add(self, tensors: Sequence[Array]) -> None:
        """Got, exact, own, yardsticks: got is held to exact, each yardstick to own."""
        got, exact, own, *yardsticks = tensors
        self.finite &= bool(np.isfinite(got).all())
        if self.is_logits:
            self.best.append((_same_best(got, exact), _same_best(yardsticks[0], own)))
        new = [errors(got, exact), *(errors(tensor, own) for tensor in yardsticks)]
        old = self.totals or [Errors()] * len(new)
        self.totals = [before + more for before, more in zip(old, new, strict=True)]
        self.by_call.append(new[0].largest)
        self.largest = max(self.largest, magnitude(exact))

    def result(self, name: str, kind: str, dtype: str) -> TensorResult:
        """The judgement; ``dtype`` is the precision the tensor carries."""
        judgement = judge_errors(self.totals[0], self.totals[1:], self.largest, dtype)
        by_call = tuple(self.by_call)
        best = self._best_token() if self.best else None
        return TensorResult(name, kind, judgement, self.largest, by_call, self.finite, best)

    def _best_token(self) -> BestToken:
        subject, torch = (np.concatenate(part) for part in zip(*self.best, strict=True))
        return BestToken(subject.size, float(subject.mean()), float(torch.mean()))


def _same_best(logits: Array, exact: Array) -> Array:
    """Position by position, whether both logits [B, T, vocab] are largest at the same token."""
    return np.ravel(logits.argmax(-1) == exact.argmax(-1))


@dataclass
class _Tallies:
    """One tally for the output of a model, and one for each of its states."""

    output_name: str
    dtype: str
    output: Tally
    states: dict[str, Tally] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest) -> _Tallies:
        is_logits = manifest.is_language_model
        return cls(manifest.outputs[0].name, manifest.dtype, Tally(is_logits=is_logits))

    def add(self, outputs: Sequence[Array], states: Sequence[Mapping[str, Array]]) -> None:
        """Tensors of subject, exact, own, and the yardsticks."""
        self.output.add(outputs)
        for key in states[0]:
            self.states.setdefault(key, Tally()).add([state[key] for state in states])

    def results(self, prefix: str = "") -> list[TensorResult]:
        # states are float32 in every bundle; the output carries the rounding of its dtype
        output = self.output.result(prefix + self.output_name, "output", self.dtype)
        states = [t.result(prefix + k, "state", "float32") for k, t in self.states.items()]
        return [output, *states]


def compare_rollout(
    panel: Panel,
    inputs: Array,
    batch: int,
    calls: Sequence[int],
    manifest: Manifest,
    progress: Progress | None = None,
) -> list[TensorResult]:
    """Run ``calls`` steps at a time through every session, each carrying its own states.

    inputs: ids [B, sum(calls)] or embeddings [B, sum(calls), D], of which the subject sees the
    first ``batch`` rows and the yardsticks all; ``manifest`` is the subject's. Returns one result
    per output and state.
    """
    sessions = (panel.subject, panel.exact, panel.own, panel.recurrent, panel.chunkwise)
    states: list[Mapping[str, Array] | None] = [None] * len(sessions)
    tallies = _Tallies.of(manifest)
    start = 0
    for call, steps in enumerate(calls):
        part = inputs[:, start : start + steps]
        start += steps
        outputs = []
        for index, session in enumerate(sessions):
            rows = part[:batch] if index < 2 else part
            output, states[index] = session.run(rows, states[index])
            is_cut = manifest.logits == "last" and index > 0
            outputs.append(output[:, -1:] if is_cut else output)
        tallies.add(outputs, [state for state in states if state is not None])
        if progress is not None:
            progress("comparing", call + 1, len(calls))
    return tallies.results()


def compare_ragged(
    panel: Panel, run_ragged: RunRagged, inputs: Array, manifest: Manifest
) -> list[TensorResult]:
    """One batch of rows of different lengths, against each row alone.

    ``run_ragged`` is the subject's ``run`` with lengths. Returns one result per output and state,
    named ``ragged {name}``.
    """
    longest = min(inputs.shape[1], _RAGGED_STEPS)
    rows = inputs.shape[0]
    lengths = np.array([longest - (row * longest) // (2 * rows) for row in range(rows)], np.int32)
    together, states = run_ragged(inputs[:, :longest], None, lengths)
    tallies = _Tallies.of(manifest)
    for row, length in enumerate(lengths):
        alone = [
            session.run(inputs[row : row + 1, :length], None)
            for session in (panel.exact, panel.own, panel.recurrent, panel.chunkwise)
        ]
        steps = slice(-1, None) if manifest.logits == "last" else slice(0, length)
        own_row = slice(row, row + 1)
        outputs = [together[own_row, steps], *(output[:, steps] for output, _ in alone)]
        mine = {key: value[own_row] for key, value in states.items()}
        tallies.add(outputs, [mine, *(state for _, state in alone)])
    return tallies.results("ragged ")


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
