"""The one rule by which numbers are judged: a multiple of the reference's own rounding error.

For every output and every state, against float64 on the same rounded weights, the error (largest
and root mean square) may be at most FACTOR times that of the torch reference in the same
precision, plus ULPS units in the last place of the largest reference value. The torch reference
has two forms, recurrent and chunkwise; the worse counts, unless they are more than FORMS_APART
apart: then the chunkwise one is not a fair yardstick and only the recurrent one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
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

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Judgement:
    """Errors of one tensor beside what the rule allows."""

    max_error: float
    max_allowed: float
    rms_error: float
    rms_allowed: float

    @property
    def ok(self) -> bool:
        """True when both errors are within the rule (a NaN is not)."""
        return self.max_error <= self.max_allowed and self.rms_error <= self.rms_allowed


def judge(
    got: Array, exact: Array, recurrent: Array, chunkwise: Array | None, dtype: str
) -> Judgement:
    """Judge ``got`` against ``exact`` (float64); all arrays have one shape.

    ``recurrent`` and ``chunkwise`` are the torch reference's two forms in the precision of
    ``got`` (chunkwise None where the operator has one form); ``dtype`` is the element type of
    ``got`` by numpy name.
    """
    if got.shape != exact.shape:
        raise ValueError(f"compared tensors have shapes {got.shape} and {exact.shape}")
    slack = ULPS * ulp(exact, dtype)
    forms = [errors(f, exact) for f in (recurrent, chunkwise) if f is not None]
    max_error, rms_error = errors(got, exact)
    return Judgement(
        max_error,
        FACTOR * _yardstick([f[0] for f in forms], slack) + slack,
        rms_error,
        FACTOR * _yardstick([f[1] for f in forms], slack) + slack,
    )


def errors(got: Array, exact: Array) -> tuple[float, float]:
    """Largest and root-mean-square difference; infinite where ``got`` is not finite."""
    if exact.size == 0:
        return 0.0, 0.0
    difference = np.abs(got.astype(np.float64) - exact.astype(np.float64))
    if not np.isfinite(difference).all():
        return np.inf, np.inf
    return float(difference.max()), float(np.sqrt(np.mean(np.square(difference))))


def ulp(exact: Array, dtype: str) -> float:
    """Spacing of ``dtype`` numbers at the largest magnitude in ``exact``."""
    largest = float(np.abs(exact).max(initial=0.0))
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    info: Any = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]
    if largest <= float(info.smallest_normal):
        return float(info.smallest_subnormal)
    return float(2.0 ** np.floor(np.log2(largest)) * float(info.eps))


def _yardstick(form_errors: Sequence[float], slack: float) -> float:
    recurrent = form_errors[0]
    worst = max(form_errors)
    return recurrent if worst > FORMS_APART * (recurrent + slack) else worst
