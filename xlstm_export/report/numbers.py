"""Numbers as a report writes them."""

from __future__ import annotations

import math

from xlstm_export.validation.measures.tensor import StepErrors


def short(number: float | None, digits: int = 2) -> str:
    """A few digits: 3.1e-06, 0.5, 12; words for what is no number."""
    if number is None or math.isnan(number):
        return "–"
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    if number == 0 or 1e-2 <= abs(number) < 1e4:
        return f"{number:.{digits + 1}g}"
    return f"{number:.{digits - 1}e}"


def steps_words(by_step: StepErrors) -> str:
    """The step of the largest error."""
    worst = max(range(len(by_step.steps)), key=by_step.largest.__getitem__)
    return f"{by_step.steps[worst]}"
