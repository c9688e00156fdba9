"""The bundle beside another one: the same inputs, each on its own carried states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.bundle.checksum import bundle_sha256, manifest_sha256
from xlstm_export.bundle.manifest import Manifest, read_manifest
from xlstm_export.errors import OptionError
from xlstm_export.model.spec import SEQUENCE
from xlstm_export.progress import Progress
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.open import Execution
from xlstm_export.runtime.session import Array, Runner
from xlstm_export.validation.against import (
    Against,
    Gap,
    TensorPair,
    check_comparable,
    is_one_computation,
)
from xlstm_export.validation.checks.plan import TWO, Plan
from xlstm_export.validation.checks.rollout import Seen, seen_by
from xlstm_export.validation.checks.text import continue_greedily
from xlstm_export.validation.inputs import Rollout
from xlstm_export.validation.measures.forecast import ForecastTally
from xlstm_export.validation.measures.language import LanguageTally
from xlstm_export.validation.measures.tensor import TensorTally
from xlstm_export.validation.participants import Participants, is_of, open_subject, tell
from xlstm_export.validation.result import Check, Continuation, Outcome

_JUDGED = (
    "both compute one formula on the same weights in the same precision: they may differ by twice "
    "what the rule allows one of them"
)
_TOLD = (
    "what they differ by is told and not judged: {differences}. Each is right or wrong by its own "
    "validation"
)


@dataclass(frozen=True)
class Compared:
    """What came of it: the check that counts, every number, and how a text goes on."""

    check: Check
    against: Against
    continuations: tuple[Continuation, ...]


def check_other(bundle: Path, other: Path, execution: Execution) -> None:
    """Raise BundleError where ``other`` cannot be compared with ``bundle``, OptionError where it
    is the same computation of the same files.
    """
    check_comparable(str(bundle), read_manifest(bundle), str(other), read_manifest(other))
    if is_same(bundle, other) and execution.engine is None and not execution.native:
        raise OptionError("against", f"{other} is the bundle itself, and would run the same way")


def is_same(bundle: Path, other: Path) -> bool:
    """Whether both are one folder."""
    return bundle.resolve() == other.resolve()


def compare_against(
    everyone: Participants, other: Path, rollouts: Sequence[Rollout], batch: int, plan: Plan,
    progress: Progress | None,
) -> Compared:  # fmt: skip
    """Run the bundle of ``everyone`` and ``other``, in ONNX Runtime, over ``rollouts``.

    A bundle against itself runs by its function bodies; by an engine, as it is. Where both are of
    the checkpoint that was read, its own numbers in float64 stand beside both.
    """
    tell(progress, f"comparing with {other}")
    manifest, notes = read_manifest(other), list[str]()
    session = open_subject(other, manifest, _execution(everyone, other), notes)
    is_same_source = manifest.source.sha256 == everyone.manifest.source.sha256
    exact = _exact(everyone) if is_same_source and is_of(manifest, everyone.checkpoint) else None
    is_judged = is_one_computation(everyone.manifest, manifest)
    runners = [everyone.subject, session, *([exact] if exact else [])]
    tallies = _run(runners, everyone.manifest, manifest, rollouts, batch)
    own, its = ({(s.key, s.shape) for s in m.states} for m in (everyone.manifest, manifest))
    against = Against(
        bundle=str(other),
        bundle_sha256=bundle_sha256(other),
        manifest_sha256=manifest_sha256(other),
        subject=session.name,
        subject_ops=session.describe(),
        dtype=manifest.dtype,
        is_judged=is_judged,
        reason=_JUDGED if is_judged else _TOLD.format(differences=_others(everyone, manifest)),
        exact=f"{exact.name}, on the checkpoint's own weights" if exact else "",
        tensors=tuple(tally.pair(name, plan, is_judged) for name, tally in tallies.items()),
        left_out=tuple(sorted({key for key, _ in own ^ its})),
        notes=tuple(notes),
    )
    texts = continue_greedily(everyone, plan, session, str(other))
    session.close()
    return Compared(_check(against), against, texts)


def _execution(everyone: Participants, other: Path) -> Execution:
    how, is_own = everyone.execution, is_same(everyone.bundle, other)
    return replace(how, engine=None, native=how.native and (how.engine is not None or not is_own))


def _exact(everyone: Participants) -> Runner:
    """The checkpoint's own numbers in float64."""
    if everyone.manifest.dtype == "float32" and everyone.manifest.low_bit is None:
        return everyone.float64.in_form("chunkwise")
    checkpoint = everyone.checkpoint
    return ReferenceModel(checkpoint.spec, checkpoint.weights, "float32", "float64", "chunkwise")


def _others(everyone: Participants, manifest: Manifest) -> str:
    """In what two bundles differ that compute different numbers."""
    own, found = everyone.manifest, []
    if own.source.sha256 != manifest.source.sha256:
        found.append("they were made from different checkpoints")
    if own.dtype != manifest.dtype:
        found.append(f"one is in {own.dtype}, the other in {manifest.dtype}")
    if own.numerics != manifest.numerics:
        found.append(f"numerics {own.numerics} and {manifest.numerics}")
    if own.low_bit != manifest.low_bit:
        words = (m.low_bit.words if m.low_bit else "wide weights" for m in (own, manifest))
        found.append(" and ".join(words))
    return "; ".join(found)


def _check(against: Against) -> Check:
    outcome: Outcome = "passed" if against.is_judged else "skipped"
    words = against.words if against.is_judged else f"{against.words}: told, not judged"
    return Check(f"against {against.bundle}", outcome if against.ok else "failed", words)


@dataclass
class _GapTally:
    """A gap, added up call by call."""

    tensor: TensorTally
    language: LanguageTally | None
    forecast: ForecastTally | None

    def gap(self) -> Gap:
        steps = self.tensor.steps()
        return Gap(
            largest=self.tensor.largest,
            rms=math.sqrt(self.tensor.squares / self.tensor.count) if self.tensor.count else 0.0,
            measures=self.tensor.measures(),
            by_step=steps if any(steps.steps) else None,
            unbounded=self.tensor.unbounded,
            language=self.language.measures() if self.language else None,
            forecast=self.forecast.measures() if self.forecast else None,
        )


@dataclass
class _PairTally:
    """Gaps of bundle from other, bundle from exact, other from exact; the last two may lack."""

    kind: str
    gaps: list[_GapTally] = field(default_factory=list)

    def pair(self, name: str, plan: Plan, is_judged: bool) -> TensorPair:
        apart, *exact = (tally.gap() for tally in self.gaps)
        own, its = exact or (None, None)
        allowed = TWO * plan.allowed[name] if is_judged and name in plan.allowed else None
        return TensorPair(name, self.kind, apart, own, its, allowed)


def _run(
    runners: Sequence[Runner], own: Manifest, its: Manifest, rollouts: Sequence[Rollout], batch: int
) -> dict[str, _PairTally]:
    """Every call through bundle, other and, where there is one, the exact model."""
    tallies: dict[str, _PairTally] = {}
    is_last = "last" in (own.logits, its.logits)
    for rollout in rollouts:
        states: list[Any] = [None] * len(runners)
        end = 0
        for number, call in enumerate(rollout):
            few = {name: x[:batch] for name, x in call.items()}
            found = [who.run(few, old) for who, old in zip(runners, states, strict=True)]
            states = [state for _, state in found]
            end += next(iter(few.values())).shape[1] if own.states else 1
            seen = seen_by(rollout, number, batch) if own.forecast else None
            outputs = [output for output, _ in found]
            if is_last:
                outputs = [{n: x[:, -1:] for n, x in output.items()} for output in outputs]
            for kind, tensors in (("output", outputs), ("state", states)):
                for name in (n for n in tensors[0] if n in tensors[1]):
                    arrays = [np.asarray(tensor[name]) for tensor in tensors]
                    if arrays[0].shape != arrays[1].shape:
                        continue
                    if name not in tallies:
                        tallies[name] = _tally(kind, own, len(runners))
                    _add(tallies[name], arrays, end, seen)
    return tallies


def _add(tally: _PairTally, arrays: Sequence[Array], end: int, seen: Seen | None) -> None:
    own, its, *exact = arrays
    pairs = [(own, its), *((x, exact[0]) for x in (own, its) if exact)]
    for gap, (got, wanted) in zip(tally.gaps, pairs, strict=True):
        gap.tensor.add(got, wanted, end)
        if gap.language is not None:
            gap.language.add(got, wanted)
        if gap.forecast is not None and seen is not None:
            gap.forecast.add(got, wanted, *seen)


def _tally(kind: str, manifest: Manifest, count: int) -> _PairTally:
    is_output, forecast = kind == "output", manifest.forecast
    is_sequence = is_output and manifest.inputs[0].shape[1:2] == (SEQUENCE,)
    return _PairTally(
        kind,
        [
            _GapTally(
                TensorTally(is_sequence),
                LanguageTally() if is_output and manifest.is_language_model else None,
                ForecastTally(forecast.levels) if is_output and forecast else None,
            )
            for _ in range(1 if count == 2 else 3)
        ],
    )
