"""One unlucky sample is not a verdict; a fault in every sample is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from xlstm_export.validation.checks.rollout import baseline_rows
from xlstm_export.validation.tally import Tally, TensorResult, middle_of_samples
from xlstm_export.validation.tolerance import Judgement


def result_of(error: float) -> TensorResult:
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
        return [result_of(errors[seed - 5])]

    notes: list[str] = []
    (result,) = middle_of_samples(sample, 5, notes)
    assert result.judgement.ok is is_ok
    assert seen == [5, 6, 7][:samples]
    assert bool(notes) is (samples > 1)


def test_few_numbers_are_measured_by_groups_of_as_many_rows() -> None:
    """One row with a large error is no rarer to a baseline than it is to the subject."""
    exact = np.zeros((8, 3))
    baseline = np.full((8, 3), 1e-3)
    baseline[5] = 1.0  # badly conditioned
    allowed = {}
    for few in (False, True):
        tally = Tally(few=few)
        tally.add([exact[:2], exact[:2], exact, baseline, baseline])
        judgement = tally.result("logits", "output", "float32").judgement
        allowed[few] = judgement.rms_allowed
        assert judgement.max_allowed == pytest.approx(2.0, rel=1e-6)
    assert allowed[True] == pytest.approx(2 * math.sqrt(0.5), rel=1e-3)
    assert allowed[False] == pytest.approx(2 * math.sqrt(1 / 8), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "rows"),
    [("vil-one", 24), ("vil-two-bare", 6), ("stack-mixed", 6), ("tirex-small", 24)],
)
def test_baselines_see_more_rows_of_few_numbers(library: Library, name: str, rows: int) -> None:
    assert baseline_rows(library.checkpoint(BY_ID[name]).spec) == rows
