"""Errors in every unit, step by step, and where the first NaN is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xlstm_export.validation.measures.tensor import StepErrors, TensorTally


def _tally(*calls: tuple[np.ndarray, np.ndarray, int], is_sequence: bool = True) -> TensorTally:
    tally = TensorTally(is_sequence)
    for got, exact, end in calls:
        tally.add(got, exact, end)
    return tally


def test_measures_are_those_of_all_calls_at_once() -> None:
    random = np.random.default_rng(0)
    exact = random.standard_normal((2, 30, 5))
    got = exact + 1e-3 * random.standard_normal(exact.shape)
    parts = _tally((got[:, :10], exact[:, :10], 10), (got[:, 10:], exact[:, 10:], 30)).measures()
    error = got - exact
    assert parts.mean_error == pytest.approx(np.abs(error).mean())
    assert parts.relative_error == pytest.approx(np.abs(error).max() / np.abs(exact).max())
    assert parts.relative_rms == pytest.approx(np.linalg.norm(error) / np.linalg.norm(exact))
    inner = float((got * exact).sum())
    assert parts.cosine == pytest.approx(inner / np.linalg.norm(got) / np.linalg.norm(exact))
    power = np.square(exact).sum() / np.square(error).sum()
    assert parts.snr_db == pytest.approx(10 * math.log10(power))


def test_an_exact_tensor_has_no_error_and_no_noise() -> None:
    exact = np.ones((1, 3, 2))
    found = _tally((exact, exact, 3))
    assert found.measures().relative_error == found.measures().mean_error == 0
    assert found.measures().snr_db == math.inf
    assert found.histogram(1.0).exact == 6
    assert found.histogram(1.0).counts == ()


def test_steps_are_numbered_over_calls() -> None:
    exact = np.zeros((2, 3, 4))
    got = exact.copy()
    got[:, 2] = 2.0
    got[0, 2, 0] = 4.0
    rms = math.sqrt((7 * 4 + 16) / 8)
    mean = (7 * 2 + 4) / 8
    steps = _tally((got[:, :2], exact[:, :2], 12), (got[:, 2:], exact[:, 2:], 13)).steps()
    assert steps == StepErrors((11, 12, 13), (0, 0, 4.0), (0, 0, mean), (0, 0, rms))


def test_a_state_has_the_step_after_which_it_was_returned() -> None:
    exact = np.zeros((2, 3))
    calls = ((exact + 1, exact, 7), (exact + 2, exact, 9))
    assert _tally(*calls, is_sequence=False).steps().steps == (7, 9)
    assert _tally(*calls, is_sequence=False).steps().largest == (1, 2)


def test_the_first_nan_is_located_and_the_rest_still_measured() -> None:
    exact = np.ones((3, 4, 2))
    got = exact + 0.5
    got[2, 1, 0], got[0, 3, 1] = np.nan, np.inf
    tally = _tally((got, exact, 24))
    assert tally.unbounded is not None
    assert (tally.unbounded.step, tally.unbounded.row, tally.unbounded.count) == (22, 3, 2)
    assert tally.unbounded.words == "first at step 22, row 3; 2 numbers in all"
    assert tally.measures().mean_error == pytest.approx(0.5)
    assert tally.steps().largest == (0.5, math.inf, 0.5, math.inf)
    tally.add(got, exact, 28)
    assert (tally.unbounded.step, tally.unbounded.count) == (22, 4)


def test_sizes_of_errors_are_counted_in_units_of_the_rule() -> None:
    exact = np.zeros((1, 4, 2))
    got = np.array([0, 0, 0.3, 0.3, 1.5, 1.5, 1.5, 0.7]).reshape(exact.shape)
    histogram = _tally((got, exact, 4)).histogram(allowed=2.0)
    assert histogram.exact == 2
    assert sum(histogram.counts) == 6
    assert histogram.edges == (0.125, 0.25, 0.5, 1.0)
    assert histogram.counts == (2, 1, 3)
