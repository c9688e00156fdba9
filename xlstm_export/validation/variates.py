"""What a comparison feeds to a forecaster of several series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from xlstm_export.model.layers.joined_variates import JoinedVariates
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.variates import CONTEXT, FUTURE, GROUPS, PAST
from xlstm_export.runtime.session import Array


class _Call(NamedTuple):
    """Numbers of variates; length and horizon as fractions of what the model takes."""

    targets: int
    past: int
    known: int
    length: float
    horizon: float


_IN_GROUPS = _Call(2, 1, 2, 1.2, 0.8)
_CALLS = (
    _Call(1, 0, 0, 1.0, 1.0),
    _Call(1, 0, 1, 0.3, 0.5),
    _IN_GROUPS,
    _Call(1, 1, 1, 0.6, 0.6),
)
"""Alone, with covariates, in groups, and all in one; contexts that are cut and that are filled
up."""

_GROUPS = 3
_SMALLEST, _LARGEST = 0.3, 30.0
"""Scales of series: near enough for an error in any of them to show."""


def is_multivariate(spec: ModelSpec) -> bool:
    """Whether ``spec`` takes the inputs of ``model.variates``."""
    return any(tensor.name == GROUPS for tensor in spec.inputs)


def draw_variates(
    spec: ModelSpec, rows: int, random: np.random.Generator
) -> list[Mapping[str, Array]]:
    """Calls of different numbers of variates."""
    (sizes,) = spec.layers_of(JoinedVariates)
    calls: list[Mapping[str, Array]] = []
    for index, call in enumerate(_CALLS):
        length = max(2, round(call.length * sizes.context_size))
        horizon = max(1, round(call.horizon * sizes.future_size))
        groups = np.zeros((rows, call.targets + call.past + call.known), np.int64)
        if call is _IN_GROUPS:
            groups = random.integers(0, _GROUPS, groups.shape)
            groups[0, 0] = _GROUPS  # a target alone
        future = draw_series((rows, call.known, length + horizon), random, index)
        for number in range(call.known):  # known all along, then for less and less of the horizon
            future[:, number, length + horizon * (call.known - number) // call.known :] = np.nan
        calls.append({
            CONTEXT: draw_series((rows, call.targets, length), random, index),
            PAST: draw_series((rows, call.past, length), random, index),
            FUTURE: future,
            GROUPS: groups,
        })  # fmt: skip
    return calls


def draw_series(shape: tuple[int, ...], random: np.random.Generator, first: int = 0) -> Array:
    """float32 series along the last axis: waves, walks and trends of many scales, with holes.

    The second and every third after it is one that a forecaster must survive: missing altogether,
    of zeros and ones, or constant, in turn from kind ``first`` on.
    """
    count, steps = int(np.prod(shape[:-1], dtype=int)), shape[-1]
    time = np.arange(steps) / steps
    waves = np.sin(
        2 * np.pi * (time * random.uniform(1, 20, (count, 1)) + random.random((count, 1)))
    )
    noise = random.standard_normal((count, steps))
    walks = noise.cumsum(axis=1) / np.sqrt(steps)
    trends = time * random.normal(0, 4, (count, 1))
    kinds = random.permutation(count)[:, None] % 4
    series = np.choose(kinds, [waves + 0.1 * noise, walks, trends + 0.2 * noise, noise])
    series = series * np.exp(random.uniform(np.log(_SMALLEST), np.log(_LARGEST), (count, 1)))
    series += random.normal(0, 3, (count, 1))
    hole = random.random((count, steps)) < 0.1
    series[hole & (random.random((count, 1)) < 0.5)] = np.nan
    for number, place in enumerate(range(1, count, 3), first):
        odd = (np.full(steps, np.nan), noise[place] > 0, np.full(steps, 2.5))
        series[place] = odd[number % len(odd)]
    return series.astype(np.float32).reshape(shape)
