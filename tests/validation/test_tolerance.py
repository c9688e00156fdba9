"""The tolerance rule is what it says it is."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from xlstm_export.validation.tolerance import (
    FACTOR,
    ULPS,
    Errors,
    errors,
    is_bfloat16,
    judge,
    judge_errors,
    magnitude,
    ulp,
)


def test_errors_are_largest_and_root_mean_square() -> None:
    found = errors(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 1.0]))
    assert found.largest == 2.0
    assert found.rms == pytest.approx(math.sqrt((0.25 + 4) / 3))


def test_errors_add_up_as_if_seen_at_once() -> None:
    random = np.random.default_rng(0)
    got, exact = random.standard_normal((2, 100))
    parts = errors(got[:30], exact[:30]) + errors(got[30:], exact[30:])
    whole = errors(got, exact)
    assert parts.largest == whole.largest
    assert parts.rms == pytest.approx(whole.rms)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_never_within_the_rule(bad: float) -> None:
    exact = np.ones(3)
    assert not judge(np.array([1.0, bad, 1.0]), exact, exact + 1, exact + 1, "float32").ok


def test_a_yardstick_that_overflows_allows_nothing() -> None:
    exact, overflown = np.ones(3), np.array([1.0, np.inf, 1.0])
    assert not judge(exact, exact, overflown, overflown, "float16").ok
    assert not judge(overflown, exact, overflown, overflown, "float16").ok
    assert judge(exact, exact, exact, overflown, "float16").ok


def test_large_tensors_are_compared_piece_by_piece_to_the_same_errors() -> None:
    random = np.random.default_rng(0)
    exact = random.standard_normal((3, 1 << 14, 5))
    got = (exact + 1e-3 * random.standard_normal(exact.shape)).astype(np.float32)
    found = errors(got.transpose(1, 0, 2), exact.transpose(1, 0, 2))
    difference = np.abs(got - exact)
    assert found.largest == difference.max()
    assert found.rms == pytest.approx(math.sqrt(np.square(difference).mean()), rel=1e-12)
    got[2, -1, -1] = np.nan
    assert errors(got, exact).largest == math.inf


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes"):
        errors(np.ones(3), np.ones((3, 1)))


@pytest.mark.parametrize(
    ("value", "dtype", "spacing"),
    [
        (1.0, "float32", 2.0**-23),
        (1.9, "float16", 2.0**-10),
        (300.0, "bfloat16", 2.0),
        (0.0, "float32", 2.0**-149),
    ],
)
def test_ulp_is_the_spacing_of_numbers(value: float, dtype: str, spacing: float) -> None:
    assert ulp(value, dtype) == spacing


def _allowed(recurrent: float, chunkwise: float | None = None) -> float:
    forms = [Errors(recurrent, recurrent**2, 1)]
    if chunkwise is not None:
        forms.append(Errors(chunkwise, chunkwise**2, 1))
    return judge_errors(Errors(), forms, 1.0, "float32").max_allowed


def test_allowance_is_a_multiple_of_the_worse_form_plus_ulps() -> None:
    slack = ULPS * 2.0**-23
    assert _allowed(1e-3) == pytest.approx(FACTOR * 1e-3 + slack)
    assert _allowed(1e-3, 5e-3) == pytest.approx(FACTOR * 5e-3 + slack)


def test_a_chunkwise_form_that_fails_does_not_count() -> None:
    assert _allowed(1e-3, 1.0) == pytest.approx(_allowed(1e-3))


def test_an_exact_reference_still_allows_rounding() -> None:
    exact = np.array([1.0])
    near, far = exact + 3 * 2.0**-23, exact + 5 * 2.0**-23
    assert judge(near, exact, exact, exact, "float32").ok
    assert not judge(far, exact, exact, exact, "float32").ok


def test_rms_is_judged_beside_the_maximum() -> None:
    """A bias everywhere is found even where one outlier of the reference hides it."""
    exact = np.zeros(1000)
    reference = exact.copy()
    reference[0] = 1.0
    judgement = judge(exact + 0.5, exact, reference, reference, "float32")
    assert judgement.max_error <= judgement.max_allowed
    assert judgement.rms_error > judgement.rms_allowed
    assert not judgement.ok


def test_rounded_numbers_are_judged_in_their_units() -> None:
    unit = 2.0**-7
    plain = judge_errors(Errors(), [Errors(0.0, 0.0, 1)], 1.0, "float32")
    rounded = judge_errors(Errors(), [Errors(0.0, 0.0, 1)], 1.0, "float32", rounded=True)
    assert plain.max_allowed == plain.rms_allowed == ULPS * 2.0**-23
    assert rounded.max_allowed == ULPS * unit
    assert rounded.rms_allowed == ULPS * 2.0**-15  # the geometric mean


def test_one_number_that_rounds_to_the_other_side_is_no_fault_and_no_rounding_is() -> None:
    random = np.random.default_rng(0)
    before = random.standard_normal(4096)
    exact = before.astype(ml_dtypes.bfloat16).astype(np.float64)
    assert is_bfloat16(exact)
    assert not is_bfloat16(before)

    def judged(got: np.ndarray) -> bool:
        baseline = [errors(exact, exact)]
        found = errors(got, exact)
        return judge_errors(found, baseline, magnitude(exact), "float32", rounded=True).ok

    turned = exact.copy()
    turned[7] *= 1 + 2.0**-7
    assert judged(turned)
    assert not judged(before)
