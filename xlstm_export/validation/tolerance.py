"""The one rule by which numbers are judged: a multiple of the reference's own rounding error.

For every output and every state, against float64 on the same rounded weights, the error (largest
and root mean square) may be at most FACTOR times that of the torch reference in the same
precision, plus ULPS units in the last place of the largest reference value. The torch reference
has two forms, recurrent and chunkwise; the worse counts, unless they are more than FORMS_APART
apart: then the chunkwise one is not a fair yardstick and only the recurrent one counts.

Where the model rounds its numbers to bfloat16, an error e before that makes few of them (one in
ulp(bfloat16) / e) miss by a whole ulp of bfloat16: the units are then that ulp for the largest
error, and the geometric mean of both ulps for the root mean square.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

FACTOR = 2.0
"""Two implementations of one formula round differently; a wrong formula misses by far more."""

ULPS = 4.0
"""Lets a reference that happens to be exact (one step, short sums) not demand exactness."""

FORMS_APART = 10.0
"""A form this much worse than the other is failing, not rounding."""

_PIECE = 1 << 15
"""Numbers of a tensor that are compared at a time."""

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Errors:
    """Errors of one tensor, over as many calls as were added up; infinite once not finite."""

    largest: float = 0.0
    squares: float = 0.0
    count: int = 0

    @property
    def rms(self) -> float:
        """Root mean square over all values seen."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            max(self.largest, other.largest),
            self.squares + other.squares,
            self.count + other.count,
        )


@dataclass(frozen=True)
class Judgement:
    """Errors of one tensor beside what the rule allows."""

    max_error: float
    max_allowed: float
    rms_error: float
    rms_allowed: float

    @property
    def ok(self) -> bool:
        """True when both errors are within the rule; nothing is within an infinite allowance."""
        return (
            self.max_error <= self.max_allowed < math.inf
            and self.rms_error <= self.rms_allowed < math.inf
        )


def errors(got: Array, exact: Array) -> Errors:
    """Differences of two tensors of one shape. Raises ValueError when the shapes differ."""
    if got.shape != exact.shape:
        raise ValueError(f"compared tensors have shapes {got.shape} and {exact.shape}")
    if exact.size == 0:
        return Errors()
    largest = squares = 0.0
    for mine, right in zip(_pieces(got), _pieces(exact), strict=True):
        difference = np.abs(mine.astype(np.float64) - right.astype(np.float64))
        most = float(difference.max())  # NaN where one is
        if not math.isfinite(most):
            return Errors(math.inf, math.inf, exact.size)
        largest = max(largest, most)
        squares += float(np.square(difference, out=difference).sum())
    return Errors(largest, squares, exact.size)


def _pieces(tensor: Array) -> Iterator[Array]:
    """The numbers of ``tensor`` in stretches that stay in the processor's cache."""
    flat = tensor.reshape(-1)
    return (flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE))


def judge_errors(
    got: Errors, forms: Sequence[Errors], largest: float, dtype: str, rounded: bool = False
) -> Judgement:
    """Apply the rule.

    ``forms`` are the errors of the torch reference in the precision of ``got``, recurrent first,
    then chunkwise where there is such a form. ``largest`` is the largest magnitude of the exact
    values, ``dtype`` the element type of ``got`` by numpy name. ``rounded``: the model rounds them
    to bfloat16.
    """
    unit = ulp(largest, dtype)
    most = ulp(largest, "bfloat16") if rounded else unit
    slack, slack_rms = ULPS * most, ULPS * math.sqrt(unit * most)
    return Judgement(
        got.largest,
        FACTOR * _yardstick([f.largest for f in forms], slack) + slack,
        got.rms,
        FACTOR * _yardstick([f.rms for f in forms], slack_rms) + slack_rms,
    )


def judge(
    got: Array, exact: Array, recurrent: Array, chunkwise: Array | None, dtype: str
) -> Judgement:
    """``judge_errors`` on tensors of one shape; ``exact`` is float64."""
    forms = [errors(form, exact) for form in (recurrent, chunkwise) if form is not None]
    return judge_errors(errors(got, exact), forms, magnitude(exact), dtype)


def magnitude(exact: Array) -> float:
    """Largest magnitude in ``exact``."""
    return float(np.abs(exact).max(initial=0.0))


def is_bfloat16(exact: Array) -> bool:
    """Whether every number is one of bfloat16."""
    return bool(np.array_equal(exact.astype(ml_dtypes.bfloat16).astype(exact.dtype), exact))


def ulp(value: float, dtype: str) -> float:
    """Spacing of ``dtype`` numbers at ``value``."""
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    info: Any = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]
    if value <= float(info.smallest_normal):
        return float(info.smallest_subnormal)
    return float(2.0 ** math.floor(math.log2(value)) * float(info.eps))


def _yardstick(form_errors: Sequence[float], slack: float) -> float:
    recurrent = form_errors[0]
    worst = max(form_errors)
    return recurrent if worst > FORMS_APART * (recurrent + slack) else worst
