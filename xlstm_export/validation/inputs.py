"""What a comparison feeds: calls of a model, drawn at random by what its inputs hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from xlstm_export.bundle.manifest import TensorInfo, shape_text
from xlstm_export.model.spec import ModelSpec
from xlstm_export.runtime.session import Array
from xlstm_export.validation.series import series_rollouts
from xlstm_export.validation.variates import draw_variates, is_multivariate

ROLLOUT = (7, *[1] * 12, 33, *[1] * 12, 64, *[1] * 12, 2, 16)
"""Lengths of the calls of a rollout: prefills around chunk borders, stretches of decode, states
carried throughout. Every call is a sample of every state: with few, a maximum is a matter of luck.
"""

_ALONE = 4
"""Calls of a model that begins every call anew."""

Feeds = Mapping[str, Array]
"""Inputs of one call, by name; rows first."""
Rollout = Sequence[Feeds]
"""Calls that follow each other: each goes on from the states of the one before."""


def draw_rollouts(spec: ModelSpec, rows: int, seed: int) -> list[Rollout]:
    """The rollouts of a comparison of ``spec``, for ``rows`` rows."""
    if spec.has_sequence:
        name = spec.inputs[0].name
        inputs = rollout_inputs(spec, rows, sum(ROLLOUT), seed)
        ends = np.cumsum(ROLLOUT)
        parts = zip(ends - ROLLOUT, ends, strict=True)
        return [[{name: inputs[:, start:end]} for start, end in parts]]
    random = np.random.default_rng(seed)
    if spec.recurrence == "begun":
        name = spec.inputs[0].name
        rollouts = series_rollouts(spec, rows, random)
        return [[{name: part} for part in parts] for parts in rollouts]
    if is_multivariate(spec):
        return [[call] for call in draw_variates(spec, rows, random)]
    return [
        [{tensor.name: _draw(tensor, rows, random) for tensor in spec.inputs}]
        for _ in range(_ALONE)
    ]


def rollout_inputs(spec: ModelSpec, batch: int, steps: int, seed: int) -> Array:
    """Random ids [batch, steps], or normal embeddings [batch, steps, D] for a bare stack."""
    random = np.random.default_rng(seed)
    if spec.vocab_size is not None:
        return random.integers(0, spec.vocab_size, (batch, steps))
    # rounded to float32, the type of the graph input, so that both sides see one number
    size = int(spec.inputs[0].shape[-1])
    return random.standard_normal((batch, steps, size)).astype(np.float32)


def in_words(rollouts: Sequence[Rollout]) -> str:
    """What is fed, for the report."""
    first = next(iter(rollouts[0][0]))
    calls = [call[first].shape for rollout in rollouts for call in rollout]
    if len(rollouts) == 1:
        runs = ((steps, len(list(same))) for steps, same in groupby(shape[1] for shape in calls))
        words = ", ".join(
            f"{count} x {steps}" if count > 1 else str(steps) for steps, count in runs
        )
        return f"calls of {words} steps with carried states"
    shapes = "; ".join(
        ", then ".join(shape_text(call[first].shape[1:]) for call in rollout)
        for rollout in rollouts
    )
    return f"{first} by row {shapes}"


def _draw(tensor: TensorInfo, rows: int, random: np.random.Generator) -> Array:
    """Normal numbers of the input's shape."""
    shape = (rows, *(int(size) for size in tensor.shape[1:]))
    return random.standard_normal(shape).astype(tensor.dtype)
