"""One unlucky sample is not a verdict; a fault in every sample is."""

from __future__ import annotations

import math

import pytest

from xlstm_export.validation.tally import TensorResult, middle_of_samples
from xlstm_export.validation.tolerance import Judgement


def _result(error: float) -> TensorResult:
    return TensorResult("logits", "output", Judgement(error, 1.0, 0.0, 1.0), 1.0, (error,))


@pytest.mark.parametrize(
    ("errors", "is_ok", "samples"),
    [
        ((0.5, 9.0, 9.0), True, 1),
        ((1.5, 0.5, 0.5), True, 3),
        ((1.5, 0.5, 1.5), False, 3),
        ((1.5, 1.5, 1.5), False, 3),
        ((math.inf, math.inf, 0.5), False, 3),
    ],
)
def test_the_middle_of_three_samples_counts(
    errors: tuple[float, ...], is_ok: bool, samples: int
) -> None:
    seen: list[int] = []

    def sample(seed: int) -> list[TensorResult]:
        seen.append(seed)
        return [_result(errors[seed - 5])]

    notes: list[str] = []
    (result,) = middle_of_samples(sample, 5, notes)
    assert result.judgement.ok is is_ok
    assert seen == [5, 6, 7][:samples]
    assert bool(notes) is (samples > 1)
