"""Series for forecasters: calls that begin short and long, and go on from their states."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xlstm_export.model.layers.patches import Patches
from xlstm_export.model.layers.series_scaler import SeriesScaler
from xlstm_export.model.spec import ModelSpec
from xlstm_export.runtime.session import Array

_Series = Callable[[int, np.random.Generator], Array]


def series_rollouts(spec: ModelSpec, rows: int, random: np.random.Generator) -> list[list[Array]]:
    """Rollouts of float32 [rows, length]: a call that begins, then whole patches that go on.

    Shorter than the context, longer, and just as long; then new observations, and none (NaN), for
    a forecast further ahead. Series of every kind are rows of every rollout, all of about one
    scale: an error counts by its size.
    """
    context = spec.layers_of(SeriesScaler)[0].context_length
    patch = spec.layers_of(Patches)[0].size
    calls = (
        (context // 4 + 3, 2 * patch, -3 * patch),
        (context + patch + 5, patch),
        (max(1, patch // 2), -4 * patch),
        (context, patch, patch, -patch),
    )
    return [
        _rollout([_KINDS[(row + first) % len(_KINDS)] for row in range(rows)], lengths, random)
        for first, lengths in enumerate(calls)
    ]


def _rollout(
    kinds: list[_Series], lengths: tuple[int, ...], random: np.random.Generator
) -> list[Array]:
    """Consecutive parts of one series of each kind; of a negative length all is unknown."""
    total = sum(map(abs, lengths))
    whole = np.stack([kind(total, random) for kind in kinds]).astype(np.float32)
    ends = np.cumsum(np.abs(lengths))
    parts = [whole[:, end - abs(n) : end] for n, end in zip(lengths, ends, strict=True)]
    return [x if n > 0 else np.full_like(x, np.nan) for n, x in zip(lengths, parts, strict=True)]


def _wave(length: int, random: np.random.Generator) -> Array:
    """Two seasons, a trend, a random walk and noise around a level."""
    time = np.arange(length)
    period = random.uniform(8, 400, (2, 1))
    seasons = np.sin(2 * np.pi * (time / period + random.random((2, 1)))).sum(0)
    walk = np.cumsum(random.standard_normal(length)) / np.sqrt(length)
    trend = random.standard_normal() * time / length
    noise = 0.1 * random.standard_normal(length)
    return np.asarray(seasons + walk + trend + noise + random.normal(0, 2))


def _gaps(length: int, random: np.random.Generator) -> Array:
    """Single observations and a stretch are missing."""
    series = np.where(random.random(length) < 0.2, np.nan, _wave(length, random))
    start = random.integers(0, max(1, length // 2))
    series[start : start + length // 5] = np.nan
    return series


def _constant(length: int, random: np.random.Generator) -> Array:
    return np.full(length, random.normal(0, 2))


def _zero(length: int, random: np.random.Generator) -> Array:
    return np.zeros(length)


def _missing(length: int, random: np.random.Generator) -> Array:
    return np.full(length, np.nan)


_KINDS: tuple[_Series, ...] = (_wave, _constant, _gaps, _zero, _wave, _missing)
