"""One unlucky sample is not a verdict; a fault in every sample is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from xlstm_export.validation import validate as validation
from xlstm_export.validation.checks import operators
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
        ((99.0, 0.5, 0.5), True, 3),
        ((math.inf, 0.5, 0.5), False, 1),
        ((101.0, 0.5, 0.5), False, 1),
        ((1.5, 0.5, 101.0), False, 3),
        ((1.5, math.inf, 0.5), False, 3),
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


def test_an_operators_bad_luck_runs_no_rollout_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, seeds, rollouts = BY_ID["stack-mixed"], list[int](), list[int]()
    check, compare = operators.check_operators, validation.compare_rollout

    def unlucky(runners: Any, seed: int) -> list[TensorResult]:
        seeds.append(seed)
        found = check(runners, seed)
        if seed == 0:
            found[0] = replace(found[0], judgement=result_of(9.0).judgement)
        return found

    def counted(*given: Any) -> list[TensorResult]:
        rollouts.append(1)
        return compare(*given)

    monkeypatch.setattr(operators, "check_operators", unlucky)
    monkeypatch.setattr(validation, "compare_rollout", counted)
    report = xe.validate(library.bundle(case), library.source(case).path, upstream=False)
    assert report.verdict == "self-consistent"
    assert (seeds, len(rollouts)) == ([0, 1, 2], 1)
    assert sum("three samples were run" in note for note in report.notes) == 1


def test_inputs_that_are_given_are_compared_once(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers again would be no other sample."""
    case, rollouts = BY_ID["stack-mixed"], list[int]()

    def broken(*given: Any) -> list[TensorResult]:
        rollouts.append(1)
        return [result_of(1.5)]

    np.save(tmp_path / "ids.npy", np.arange(40)[None] % 7)
    monkeypatch.setattr(validation, "compare_rollout", broken)
    report = xe.validate(
        library.bundle(case), library.source(case).path, inputs=tmp_path / "ids.npy",
        upstream=False,
    )  # fmt: skip
    assert (report.verdict, len(rollouts)) == ("failed", 1)
    assert not any("three samples" in note for note in report.notes)


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
