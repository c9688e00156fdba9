"""Errors of one tensor, added up over the calls of a check, and what the rule makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from xlstm_export.runtime.session import Array
from xlstm_export.validation.measures.forecast import ForecastMeasures, ForecastTally
from xlstm_export.validation.measures.language import LanguageMeasures, LanguageTally
from xlstm_export.validation.measures.tensor import (
    Histogram,
    Measures,
    StepErrors,
    TensorTally,
    Unbounded,
)
from xlstm_export.validation.tolerance import (
    Errors,
    Judgement,
    errors,
    is_bfloat16,
    judge_errors,
    magnitude,
)

_REPEATED = (
    "a tensor broke the rule on the first sample of inputs: three samples were run, and of each "
    "tensor the middle result counts"
)
_BEYOND_CHANCE = 100.0
"""Times what the rule allows. Rounding explains no larger error, nor NaN, on any one sample."""


@dataclass(frozen=True)
class BestToken:
    """How often the likeliest token is the exact one, as parts of ``positions``.

    ``torch`` is the recurrent baseline: PyTorch in the subject's precision, on more rows.
    """

    positions: int
    subject: float
    torch: float

    @property
    def words(self) -> str:
        """The user's own measure of a language model, beside PyTorch's."""
        return (
            f"the likeliest entry is the exact one at {100 * self.subject:.1f} % of "
            f"{self.positions} positions (the torch baseline in this precision: "
            f"{100 * self.torch:.1f} %)"
        )


@dataclass(frozen=True)
class TensorResult:
    """The judgement of one output or state over a rollout.

    ``errors_by_call`` is the largest error of each call: where a drift would show. ``finite`` is
    False where the subject computed NaN or infinity, first at ``unbounded``. ``best_token`` and
    ``language`` are of logits alone, ``forecast`` of quantiles, ``by_step`` of a model's outputs
    and states.
    """

    name: str
    kind: str
    judgement: Judgement
    magnitude: float
    errors_by_call: tuple[float, ...]
    finite: bool = True
    best_token: BestToken | None = None
    measures: Measures | None = None
    by_step: StepErrors | None = None
    histogram: Histogram | None = None
    unbounded: Unbounded | None = None
    language: LanguageMeasures | None = None
    forecast: ForecastMeasures | None = None


@dataclass
class Tally:
    """Errors of the subject and the baselines in one tensor, added up call by call.

    ``rounded`` while every exact number was one of bfloat16: the model rounds them. ``is_logits``
    counts what the errors mean to a language model, ``forecast`` what they mean to a forecaster.
    With ``few`` numbers one badly conditioned row makes up the rms of all: there a baseline's is
    its largest over groups of as many rows as the subject has.
    """

    totals: list[Errors] = field(default_factory=list)
    by_call: list[float] = field(default_factory=list)
    largest: float = 0.0
    finite: bool = True
    rounded: bool = True
    is_logits: bool = False
    few: bool = False
    groups: dict[tuple[int, int], Errors] = field(default_factory=dict)
    forecast: ForecastTally | None = None
    tensor: TensorTally = field(default_factory=TensorTally)
    language: LanguageTally = field(default_factory=LanguageTally)
    best: list[tuple[Array, Array]] = field(default_factory=list)

    def add(self, tensors: Sequence[Array], end: int = 0) -> None:
        """Subject, reference, float64, baselines: the subject is held to the reference, each
        baseline to our float64 model. ``end`` is the number of the call's last step; 0 where
        steps are not counted.
        """
        got, exact, float64, *baselines = tensors
        self.finite &= bool(np.isfinite(got).all())
        self.tensor.add(got, exact, end)
        self.rounded = self.rounded and is_bfloat16(exact)
        if self.is_logits:
            self.language.add(got, exact)
            self.best.append((_same_best(got, exact), _same_best(baselines[0], float64)))
        new = [errors(got, exact), *(errors(tensor, float64) for tensor in baselines)]
        old = self.totals or [Errors()] * len(new)
        self.totals = [before + more for before, more in zip(old, new, strict=True)]
        if self.few:
            self._add_groups(len(got), baselines, float64)
        self.by_call.append(new[0].largest)
        self.largest = max(self.largest, magnitude(exact))

    def result(self, name: str, kind: str, dtype: str) -> TensorResult:
        """The judgement; ``dtype`` is the precision the tensor carries."""
        forms = [self._worst_group(n, total) for n, total in enumerate(self.totals[1:])]
        judgement = judge_errors(self.totals[0], forms, self.largest, dtype, self.rounded)
        steps = self.tensor.steps()
        return TensorResult(
            name, kind, judgement, self.largest, tuple(self.by_call), self.finite,
            best_token=self._best_token() if self.best else None,
            measures=self.tensor.measures(),
            by_step=steps if any(steps.steps) else None,
            histogram=self.tensor.histogram(judgement.max_allowed),
            unbounded=self.tensor.unbounded,
            language=self.language.measures() if self.best else None,
            forecast=self.forecast.measures() if self.forecast else None,
        )  # fmt: skip

    def _add_groups(self, rows: int, baselines: Sequence[Array], exact: Array) -> None:
        for number, tensor in enumerate(baselines):
            for start in range(0, len(exact), rows):
                part, key = slice(start, start + rows), (number, start)
                found = errors(tensor[part], exact[part])
                self.groups[key] = self.groups.get(key, Errors()) + found

    def _worst_group(self, number: int, total: Errors) -> Errors:
        """Baseline ``number`` with the rms of the group of rows that it is largest in."""
        groups = [found for (baseline, _), found in self.groups.items() if baseline == number]
        if not groups:
            return total
        worst = max(groups, key=lambda found: found.rms)
        return replace(worst, largest=total.largest)

    def _best_token(self) -> BestToken:
        subject, torch = (np.concatenate(part) for part in zip(*self.best, strict=True))
        return BestToken(subject.size, float(subject.mean()), float(torch.mean()))


def _same_best(logits: Array, exact: Array) -> Array:
    """Position by position, whether both logits [B, T, vocab] are largest at the same token."""
    return np.ravel(logits.argmax(-1) == exact.argmax(-1))


def ratio(judgement: Judgement) -> float:
    """Error over allowance, the larger of max and rms; above 1 the rule is broken."""
    pairs = (
        (judgement.max_error, judgement.max_allowed),
        (judgement.rms_error, judgement.rms_allowed),
    )
    if not all(math.isfinite(error) for error, _ in pairs):
        return math.inf
    return max(error / allowed if allowed > 0 else float(error > 0) for error, allowed in pairs)


def may_be_chance(result: TensorResult) -> bool:
    """Whether a badly conditioned input may be all that makes ``result`` break the rule."""
    return ratio(result.judgement) <= _BEYOND_CHANCE


class Interrupted(KeyboardInterrupt):
    """A comparison was interrupted; ``results`` are of the calls that were done."""

    def __init__(self, results: list[TensorResult]) -> None:
        super().__init__()
        self.results = results


def middle_of_samples(
    sample: Callable[[int], list[TensorResult]], seed: int, notes: list[str]
) -> list[TensorResult]:
    """Results of ``sample(seed)``; where one breaks the rule, the middle one of three samples.

    A wrong bundle breaks the rule on every sample. A right one may on a single sample, where one
    badly conditioned step dominates the largest error of both sides; that is chance. NaN is not,
    nor is an error far beyond rounding: one sample that has it counts, as of an embedding with one
    damaged row.
    """
    first = sample(seed)
    if all(result.judgement.ok for result in first) or not all(map(may_be_chance, first)):
        return first
    if _REPEATED not in notes:
        notes.append(_REPEATED)
    try:
        samples = (first, sample(seed + 1), sample(seed + 2))
    except KeyboardInterrupt:
        raise Interrupted(first) from None
    return [_counting(same) for same in zip(*samples, strict=True)]


def _counting(same: Sequence[TensorResult]) -> TensorResult:
    """Of three results of one tensor the middle one; the worst, where that is no chance."""
    _, middle, worst = sorted(same, key=lambda result: ratio(result.judgement))
    return middle if may_be_chance(worst) else worst
