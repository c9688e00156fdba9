"""What two bundles of one interface differ by: directly, and each from the same float64 numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from xlstm_export.bundle.manifest import LENGTHS, Manifest, TensorInfo, shape_text
from xlstm_export.errors import BundleError
from xlstm_export.model.spec import SEQUENCE
from xlstm_export.validation.measures.forecast import ForecastMeasures
from xlstm_export.validation.measures.language import LanguageMeasures
from xlstm_export.validation.measures.tensor import Measures, StepErrors, Unbounded


@dataclass(frozen=True)
class Gap:
    """How far one computation of a tensor is from another, over a rollout with carried states.

    ``largest`` and ``rms`` are of the finite numbers, ``unbounded`` is the first that is none.
    ``language`` is of logits alone, ``forecast`` of quantiles.
    """

    largest: float
    rms: float
    measures: Measures
    by_step: StepErrors | None = None
    unbounded: Unbounded | None = None
    language: LanguageMeasures | None = None
    forecast: ForecastMeasures | None = None


@dataclass(frozen=True)
class TensorPair:
    """One output or state of both: ``apart`` is the bundle's gap from the other.

    ``bundle`` and ``other`` are their gaps from the float64 model, None where it is not that of
    both. ``allowed`` is the largest difference that rounding explains, None where two precisions
    differ by more than rounding.
    """

    name: str
    kind: str
    apart: Gap
    bundle: Gap | None = None
    other: Gap | None = None
    allowed: float | None = None

    @property
    def finite(self) -> bool:
        """Whether both computed numbers only."""
        return self.apart.unbounded is None

    @property
    def part(self) -> float:
        """The largest difference, of what is allowed; 0 where nothing is said of it."""
        if not self.finite:
            return math.inf
        return 0.0 if self.allowed is None else self.apart.largest / (self.allowed or 1.0)


@dataclass(frozen=True)
class Against:
    """The bundle beside another one, of which nothing but this is judged.

    ``exact`` names the float64 model that both are measured from; empty where they are not of one
    checkpoint. ``left_out`` are states that only one of them has.
    """

    bundle: str
    bundle_sha256: str
    manifest_sha256: str
    subject: str
    subject_ops: dict[str, str]
    dtype: str
    is_judged: bool
    reason: str
    """Why their difference is judged, or only told."""
    exact: str
    tensors: tuple[TensorPair, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """False where a number is none, or a judged difference is more than rounding."""
        return all(tensor.part <= 1 for tensor in self.tensors)

    @property
    def worst(self) -> TensorPair:
        """What differs most: of what is allowed, else of its own size."""
        return max(self.tensors, key=lambda t: (t.part, t.apart.measures.relative_error))

    @property
    def words(self) -> str:
        """One sentence."""
        if not self.worst.finite:
            return f"NaN or infinity in {self.worst.name}"
        if self.is_judged:
            part, name = self.worst.part, self.worst.name
            return f"largest difference {part:.1e} of what rounding explains, in {name}"
        (first, *_) = (t for t in self.tensors if t.kind == "output")
        words = f"{first.name} differ by {first.apart.measures.relative_rms:.1e} of their size"
        if first.bundle is not None and first.other is not None:
            own, other = (g.measures.relative_rms for g in (first.bundle, first.other))
            words += f" (from float64 {own:.1e}, the other bundle {other:.1e})"
        language = first.apart.language
        if language is not None:
            words += (
                f", KL divergence {language.kl_mean:.1e} nats, the likeliest token is the same at "
                f"{100 * language.top1:.1f} % of {language.positions} positions"
            )
        return words


def is_one_computation(first: Manifest, second: Manifest) -> bool:
    """Whether both compute the same formula on the same rounded weights."""
    own, other = ((m.source.sha256, m.dtype, m.numerics, m.low_bit) for m in (first, second))
    return own == other


def check_comparable(bundle: str, manifest: Manifest, other: str, others: Manifest) -> None:
    """Raise BundleError, naming what differs, unless both take and yield the same tensors."""
    for what, own, its in (
        ("take", _taken(manifest), _taken(others)),
        ("yield", _yielded(manifest), _yielded(others)),
    ):
        if own != its:
            raise BundleError(
                f"{other}: cannot be compared with {bundle}, they {what} different tensors "
                f"({_in_words(own)}, the other {_in_words(its)}); give another bundle of one model"
            )
    own_levels, its_levels = (m.forecast and m.forecast.levels for m in (manifest, others))
    if own_levels != its_levels:
        raise BundleError(
            f"{other}: cannot be compared with {bundle}: forecasts of other quantiles "
            f"({own_levels}, the other {its_levels})"
        )


def _taken(manifest: Manifest) -> tuple[TensorInfo, ...]:
    """Inputs that a caller has to give: lengths have a default."""
    return tuple(tensor for tensor in manifest.inputs if tensor.name != LENGTHS)


def _yielded(manifest: Manifest) -> tuple[TensorInfo, ...]:
    """Outputs; of a bundle that yields the last step alone, as if it yielded all."""
    if manifest.logits != "last":
        return manifest.outputs
    return tuple(
        replace(tensor, shape=(tensor.shape[0], SEQUENCE, *tensor.shape[2:]))
        for tensor in manifest.outputs
    )


def _in_words(tensors: Sequence[TensorInfo]) -> str:
    return ", ".join(f"{t.name} {t.dtype} {shape_text(t.shape)}" for t in tensors)
