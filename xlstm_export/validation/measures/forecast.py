"""What an error in quantiles means to a forecast: in units of the series, and as it is scored.

The loss of a quantile at level a is that of Koenker and Bassett (1978): a (y - q) where y >= q,
(1 - a) (q - y) elsewhere, for an observation y and a forecast q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from xlstm_export.runtime.session import Array

_SHOWN = 3
"""So many horizons of the series are kept with an example."""


@dataclass(frozen=True)
class Score:
    """Forecasts against what came: mean loss over levels and observations, in units of the series'
    spread, and the part of the observations within the outermost band.
    """

    quantile_loss: float
    coverage: float


@dataclass(frozen=True)
class ForecastExample:
    """One forecast to look at: the end of its series, what came, and quantiles step by step."""

    context: tuple[float, ...]
    observed: tuple[float, ...]
    subject: tuple[tuple[float, ...], ...]
    reference: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ForecastMeasures:
    """Errors of quantiles in standard deviations of the series they foretell, largest and rms.

    ``subject`` and ``reference`` are scored on ``observations``, where a rollout went on with
    observations; None where none did. ``band`` are the levels of the outermost band.
    """

    spread_error: float
    spread_rms: float
    observations: int
    band: tuple[float, float]
    subject: Score | None
    reference: Score | None
    example: ForecastExample | None = None


@dataclass
class ForecastTally:
    """Forecasts, added up call by call; ``levels`` are those of the quantiles."""

    levels: Sequence[float]
    errors: list[Array] = field(default_factory=list)
    losses: list[Array] = field(default_factory=list)
    inside: list[Array] = field(default_factory=list)
    example: ForecastExample | None = None

    def add(self, got: Array, exact: Array, context: Array, observed: Array | None) -> None:
        """Quantiles [..., H, Q] after ``context`` [..., T], and what came after it: [..., up to H].

        Rows whose spread is zero or unknown, and observations that are missing, are left out.
        """
        spread = _spread(context)
        known = np.isfinite(spread) & (spread > 0)
        if known.any() and (self.example is None or not self.example.observed):
            self.example = _example(tuple(np.argwhere(known)[0]), got, exact, context, observed)
        got, exact, spread = got[known], exact[known], spread[known][:, None, None]
        self.errors.append((np.abs(got - exact) / spread).ravel())
        if observed is None or not observed.shape[-1]:
            return
        steps = min(observed.shape[-1], got.shape[-2])
        y = observed[known][:, :steps, None]
        losses, inside = zip(
            *(self._score(q[:, :steps] / spread, y / spread) for q in (got, exact)), strict=True
        )
        is_seen = np.isfinite(y[..., 0])
        self.losses.append(np.stack([loss[is_seen] for loss in losses]))
        self.inside.append(np.stack([part[is_seen] for part in inside]))

    def measures(self) -> ForecastMeasures | None:
        """Over everything that was added; None where no series had a spread."""
        errors = np.concatenate(self.errors) if self.errors else np.zeros(0)
        if not errors.size:
            return None
        losses = np.concatenate(self.losses, axis=1) if self.losses else np.zeros((2, 0))
        inside = np.concatenate(self.inside, axis=1) if self.inside else np.zeros((2, 0))
        scores: list[Score | None] = [None, None]
        if losses.shape[1]:
            means = zip(losses.mean(1), inside.mean(1), strict=True)
            scores = [Score(float(loss), float(part)) for loss, part in means]
        return ForecastMeasures(
            spread_error=float(errors.max()),
            spread_rms=math.sqrt(float(np.square(errors).mean())),
            observations=int(losses.shape[1]),
            band=(float(self.levels[0]), float(self.levels[-1])),
            subject=scores[0],
            reference=scores[1],
            example=self.example,
        )

    def _score(self, quantiles: Array, y: Array) -> tuple[Array, Array]:
        """Loss [rows, H], the mean over levels, and whether y [rows, H, 1] is within the band."""
        levels, missed = np.asarray(self.levels), y - quantiles
        loss = np.maximum(levels * missed, (levels - 1) * missed).mean(-1)
        return loss, (y[..., 0] >= quantiles[..., 0]) & (y[..., 0] <= quantiles[..., -1])


def _spread(context: Array) -> Array:
    """Standard deviation over the known steps of [..., T]; NaN where there are fewer than two."""
    is_seen = np.isfinite(context)
    count = is_seen.sum(-1)
    zeroed = np.where(is_seen, context, 0.0).astype(np.float64)
    mean = zeroed.sum(-1) / np.maximum(count, 1)
    squares = np.where(is_seen, np.square(zeroed - mean[..., None]), 0.0).sum(-1)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count, 1)), np.nan)


def _example(
    row: tuple[int, ...], got: Array, exact: Array, context: Array, observed: Array | None
) -> ForecastExample:
    steps = got.shape[-2]
    seen = context[row][-_SHOWN * steps :]
    came = () if observed is None else tuple(map(float, observed[row][:steps]))
    return ForecastExample(
        tuple(map(float, seen)),
        came if np.isfinite(came).all() else (),
        *(tuple(tuple(map(float, step)) for step in q[row]) for q in (got, exact)),
    )
