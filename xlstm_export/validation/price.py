"""What weights in few bits cost: the bundle as it runs, against the checkpoint's own numbers.

The rule of ``tolerance`` says that a graph is exact for the weights it holds. Here both roundings
count that the rule leaves out: of the weights to 8 or 4 bits, and of activations in the runtime's
low-bit products. States are carried throughout, so that an error that grows is seen to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.model.spec import ModelSpec
from xlstm_export.progress import Progress
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.open import open_session
from xlstm_export.runtime.session import Array, Runner
from xlstm_export.validation.given import MOST_TOKENS
from xlstm_export.validation.inputs import Rollout, draw_rollouts, rollout_inputs
from xlstm_export.validation.measures.forecast import ForecastMeasures, ForecastTally
from xlstm_export.validation.measures.language import (
    LanguageMeasures,
    LanguageTally,
    Perplexity,
    next_token_loss,
    perplexity,
)
from xlstm_export.validation.participants import Participants, tell
from xlstm_export.validation.samples import Sample

STEPS, PIECE = 1024, 64
"""Steps of a rollout of sequences, and of each of its calls."""
_ROWS = 2


@dataclass(frozen=True)
class Price:
    """Differences from the checkpoint's own numbers in float64.

    ``distance``: root mean square of the difference of the outputs, in units of that of the exact
    ones. ``by_step``: the same for the calls that end at each step. ``language`` and ``forecast``
    as the kind of model has it; ``perplexity`` of a text, where one was given.
    """

    distance: float
    by_step: tuple[tuple[int, float], ...]
    language: LanguageMeasures | None = None
    forecast: ForecastMeasures | None = None
    perplexity: Perplexity | None = None

    @property
    def words(self) -> str:
        """One sentence."""
        parts = [f"outputs differ by {self.distance:.1e} of their size"]
        if len(self.by_step) > 1:
            (first, early), (last, late) = self.by_step[0], self.by_step[-1]
            parts.append(f"{early:.1e} by step {first} and {late:.1e} by step {last}")
        if self.language is not None:
            parts.append(
                f"KL divergence {self.language.kl_mean:.1e} nats, the likeliest token is the same "
                f"at {100 * self.language.top1:.1f} % of {self.language.positions} positions"
            )
        if self.forecast is not None:
            parts.append(f"quantiles by {self.forecast.spread_rms:.1e} of the series' spread (rms)")
            if self.forecast.subject is not None and self.forecast.reference is not None:
                ratio = self.forecast.subject.quantile_loss / self.forecast.reference.quantile_loss
                parts.append(f"quantile loss {100 * (ratio - 1):+.2f} %")
        if self.perplexity is not None:
            parts.append(
                f"perplexity of the text {self.perplexity.subject:.4f}, "
                f"{100 * self.perplexity.change:+.2f} %"
            )
        return "; ".join(parts)


@dataclass
class _Squares:
    """Sums of squares of a difference and of what it is a part of."""

    difference: float = 0.0
    exact: float = 0.0

    def add(self, got: Array, exact: Array) -> None:
        known = np.isfinite(exact)
        gap = np.where(known, got.astype(np.float64) - exact, 0.0)
        self.difference += float(np.square(gap).sum())
        self.exact += float(np.square(np.where(known, exact, 0.0), dtype=np.float64).sum())

    @property
    def ratio(self) -> float:
        return math.sqrt(self.difference / self.exact) if self.exact else 0.0


@dataclass
class _Tallies:
    """What is added up call by call."""

    manifest: Manifest
    whole: _Squares = field(default_factory=_Squares)
    steps: dict[int, _Squares] = field(default_factory=dict)
    language: LanguageTally | None = None
    forecast: ForecastTally | None = None
    text: Array | None = None
    losses: list[tuple[Array, Array]] = field(default_factory=list)

    def add(self, got: Array, exact: Array, end: int) -> None:
        """The output of one call, which ends at step ``end`` of its rollout."""
        for squares in (self.whole, self.steps.setdefault(end, _Squares())):
            squares.add(got, exact)
        if self.language is not None:
            self.language.add(got, exact)
        if self.text is not None:
            followers = self.text[:, end - got.shape[1] + 1 : end + 1]
            losses = (next_token_loss(logits, followers) for logits in (got, exact))
            self.losses.append((next(losses), next(losses)))

    def perplexity(self) -> Perplexity | None:
        """Of the text; None where there is none."""
        if not self.losses:
            return None
        mine, theirs = (np.concatenate(part, axis=1) for part in zip(*self.losses, strict=True))
        return perplexity(mine, theirs)


def price_of(
    everyone: Participants, text: Array | None, recorded: Sequence[Sample], seed: int,
    progress: Progress | None,
) -> Price | None:  # fmt: skip
    """The price of the bundle of ``everyone``, and a note of it; None of weights that are wide.

    What was recorded elsewhere is of the checkpoint's own numbers as well, and counts here.
    """
    low_bit, execution = everyone.manifest.low_bit, everyone.execution
    if low_bit is None:
        return None
    tell(progress, "measuring what few bits cost")
    is_emulated = everyone.manifest.dtype == "bfloat16" and not execution.is_cuda
    subject: Runner = everyone.subject
    if execution.engine is None and not is_emulated:
        subject = open_session(everyone.bundle, execution)
    checkpoint = everyone.checkpoint
    original = ReferenceModel(
        checkpoint.spec, checkpoint.weights, "float32", "float64", "chunkwise"
    )
    # the last one is only foretold
    ids = None if text is None else text[None, : MOST_TOKENS + 1]
    price = measure_price(subject, original, checkpoint.spec, everyone.manifest, seed, ids)
    fed = "drawn inputs" if text is None else "the given text"
    if text is not None and len(text) > MOST_TOKENS + 1:
        fed = f"the first {MOST_TOKENS:,} of the {len(text):,} tokens of the given text"
    everyone.notes.append(
        f"{low_bit.words}, as it runs, against the checkpoint's own numbers, on {fed}: "
        f"{price.words}"
    )
    if low_bit.mixed is not None:
        everyone.notes.append(f"bits are mixed: {low_bit.mixed.words}")
        everyone.notes.extend(choice.words for choice in low_bit.mixed.raised)
    everyone.notes.extend(_recorded(subject, sample) for sample in recorded)
    return price


def _recorded(subject: Runner, sample: Sample) -> str:
    """How far ``subject`` is from numbers that were recorded elsewhere."""
    squares, found = _Squares(), subject.run(sample.inputs)[0]
    for name, wanted in sample.outputs.items():
        squares.add(found[name], wanted[:, -found[name].shape[1] :])
    return (
        f"from numbers recorded elsewhere its outputs differ by {squares.ratio:.1e} of their size"
    )


def measure_price(
    subject: Runner,
    original: Runner,
    spec: ModelSpec,
    manifest: Manifest,
    seed: int = 0,
    text: Array | None = None,
) -> Price:
    """Run ``subject`` beside ``original``, the model on the checkpoint's own numbers.

    ``text``: token ids [1, T] of a language model's text. Drawn inputs say how far the two are
    apart, a text says what it means.
    """
    is_logits = manifest.is_language_model
    forecast = manifest.forecast
    tallies = _Tallies(
        manifest,
        language=LanguageTally() if is_logits else None,
        forecast=ForecastTally(forecast.levels) if forecast else None,
        text=text if manifest.logits == "all" else None,
    )
    for rollout in _rollouts(spec, seed, text):
        _run(subject, original, rollout, tallies)
    return Price(
        distance=tallies.whole.ratio,
        by_step=tuple((end, squares.ratio) for end, squares in sorted(tallies.steps.items())),
        language=tallies.language.measures() if tallies.language else None,
        forecast=tallies.forecast.measures() if tallies.forecast else None,
        perplexity=tallies.perplexity(),
    )


def _rollouts(spec: ModelSpec, seed: int, text: Array | None) -> Sequence[Rollout]:
    if not spec.has_sequence:
        return draw_rollouts(spec, _ROWS, seed)
    inputs = rollout_inputs(spec, _ROWS, STEPS, seed) if text is None else text[:, :-1]
    name = spec.inputs[0].name
    return [[{name: part} for part in _pieces(inputs)]]


def _pieces(inputs: Array) -> list[Array]:
    return [inputs[:, start : start + PIECE] for start in range(0, inputs.shape[1], PIECE)]


def _run(subject: Runner, original: Runner, rollout: Rollout, tallies: _Tallies) -> None:
    """One rollout with carried states."""
    mine: Mapping[str, Array] | None = None
    theirs: Mapping[str, Array] | None = None
    end, name = 0, next(iter(rollout[0]))
    is_carried = bool(tallies.manifest.states)
    for number, call in enumerate(rollout):
        got, mine = subject.run(call, mine if is_carried else None)
        exact, theirs = original.run(call, theirs if is_carried else None)
        end += call[name].shape[1] if is_carried else 1
        (output,) = got
        wanted = exact[output][:, -1:] if tallies.manifest.logits == "last" else exact[output]
        tallies.add(got[output], wanted, end)
        if tallies.forecast is not None:
            parts = [step[name] for step in rollout]
            later = parts[number + 1 :]
            tallies.forecast.add(
                got[output], wanted, np.concatenate(parts[: number + 1], axis=-1),
                np.concatenate(later, axis=-1) if later else None,
            )  # fmt: skip
