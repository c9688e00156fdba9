"""Numbers like those of a network's example inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def numbers_like(example: Array, shape: Sequence[int], random: np.random.Generator) -> Array:
    """``shape`` of numbers that ``example`` could hold, in its dtype.

    Of floating-point ones its own, in another order, so that a positive input stays positive, a
    mask a mask, and what is missing (NaN) as often so; around one number alone normal ones, with a
    standard deviation of 1. Whole numbers come from the example's range.
    """
    drawn: Array
    if example.dtype.kind == "i":
        drawn = random.integers(example.min(), example.max(), shape, example.dtype, endpoint=True)
    elif is_one_number(example):
        drawn = (example.flat[0] + random.standard_normal(shape)).astype(example.dtype)
    else:
        drawn = random.choice(example.reshape(-1), tuple(shape))
    return drawn


def is_one_number(example: Array) -> bool:
    """Whether all numbers of ``example`` are the same finite one."""
    return bool((example == example.flat[0]).all() and np.isfinite(example.flat[0]))


def all_like(examples: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Inputs of the examples' shapes."""
    random = np.random.default_rng(seed)
    return {name: numbers_like(x, x.shape, random) for name, x in examples.items()}
