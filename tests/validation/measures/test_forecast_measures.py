"""Forecasts in units of their series, and scored against what came."""

from __future__ import annotations

import numpy as np
import pytest

from xlstm_export.validation.measures.forecast import ForecastTally

LEVELS = (0.1, 0.5, 0.9)


def test_an_error_counts_by_the_spread_of_its_series() -> None:
    context = np.array([[0.0, 2.0, np.nan], [0.0, 200.0, 0.0], [3.0, 3.0, 3.0]])
    exact = np.zeros((3, 4, 3))
    got = exact.copy()
    got[0], got[1], got[2] = 0.5, 0.5, 99.0  # the constant series has no spread, and no vote
    tally = ForecastTally(LEVELS)
    tally.add(got, exact, context, None)
    found = tally.measures()
    assert found is not None
    assert found.spread_error == pytest.approx(0.5)
    assert found.observations == 0
    assert found.subject is found.reference is None


def test_quantile_loss_and_coverage_are_those_of_the_definition() -> None:
    context = np.array([[-1.0, 1.0]])
    exact = np.broadcast_to(np.array([-1.0, 0.0, 1.0]), (1, 4, 3))
    observed = np.array([[0.5, 2.0, np.nan]])
    tally = ForecastTally(LEVELS)
    tally.add(exact + 3, exact, context, observed)
    found = tally.measures()
    assert found is not None
    assert found.subject is not None
    assert found.reference is not None
    assert found.band == (0.1, 0.9)
    assert found.observations == 2
    first = (0.1 * 1.5 + 0.5 * 0.5 + 0.1 * 0.5) / 3
    second = (0.1 * 3 + 0.5 * 2 + 0.9 * 1) / 3
    assert found.reference.quantile_loss == pytest.approx((first + second) / 2)
    assert found.reference.coverage == 0.5
    assert found.subject.coverage == 0.5
    assert found.subject.quantile_loss > found.reference.quantile_loss


def test_without_any_spread_there_are_no_measures() -> None:
    tally = ForecastTally(LEVELS)
    tally.add(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), np.full((1, 5), np.nan), None)
    assert tally.measures() is None
