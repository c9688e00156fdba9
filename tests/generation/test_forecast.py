"""What a forecast feeds, how it goes on, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.generation.forecaster import LEVELS, ONE_BY_ONE, PATCH, TOGETHER, Sums
from xlstm_export.errors import BundleError, InputError, OptionError
from xlstm_export.generation.forecast import forecast_series


def test_rows_of_unequal_lengths_are_filled_up_in_front() -> None:
    session = Sums(ONE_BY_ONE)
    found = forecast_series(session, [[1.0, 2.0, 3.0], np.array([10.0])], 3)
    fed = session.calls[0]["context"]
    np.testing.assert_array_equal(fed, np.array([[1, 2, 3], [np.nan, np.nan, 10]], np.float32))
    assert fed.dtype == np.float32
    assert found.quantiles.shape == (2, 3, len(LEVELS))
    np.testing.assert_allclose(found.median, [[6.5, 7.5, 8.5], [10.5, 11.5, 12.5]])
    np.testing.assert_allclose(found.quantile(0.9)[0], [6.9, 7.9, 8.9], rtol=1e-6)


@pytest.mark.parametrize("horizon", [1, PATCH, PATCH + 1, 3 * PATCH, 3 * PATCH + 2])
def test_what_goes_on_is_what_begins_again(horizon: int) -> None:
    """Carried: one call more, whatever the horizon. Rerun: a call for each patch."""
    carried, rerun = Sums(ONE_BY_ONE), Sums(ONE_BY_ONE)
    values = np.arange(8.0)
    found = forecast_series(carried, values, horizon)
    again = forecast_series(rerun, values, horizon, rollout="rerun")
    steps = np.arange(horizon)
    expected = values.sum() + 100 * (steps // PATCH) + steps % PATCH + 0.5
    if horizon <= 5:  # beyond, what begins again has lost the oldest values
        np.testing.assert_allclose(again.median[0], expected)
    np.testing.assert_allclose(found.median[0], expected)
    patches = -(-horizon // PATCH)
    assert len(carried.calls) == min(patches, 2)
    assert len(rerun.calls) == patches
    if patches > 1:
        unknown = carried.calls[1]["context"]
        assert unknown.shape == (1, (patches - 1) * PATCH)
        assert np.isnan(unknown).all()
        assert rerun.calls[-1]["context"].shape == (1, 8 + (patches - 1) * PATCH)


def test_rows_go_side_by_side_in_batches() -> None:
    session = Sums(ONE_BY_ONE)
    series = np.arange(10.0).reshape(5, 2)
    found = forecast_series(session, series, 2, batch_size=2)
    assert [len(call["context"]) for call in session.calls] == [2, 2, 1]
    np.testing.assert_allclose(found.median[:, 0], series.sum(axis=1) + 0.5)


def test_series_that_stand_alone_in_a_model_of_several() -> None:
    session = Sums(TOGETHER)
    found = forecast_series(session, [[1.0, 2.0], [3.0]], 5)
    (call,) = session.calls
    assert call["context"].shape == (2, 1, 2)
    assert call["past_covariates"].shape == (2, 0, 2)
    assert call["future_covariates"].shape == (2, 0, 7)
    assert call["groups"].tolist() == [[0], [0]]
    np.testing.assert_allclose(found.median[:, 0], [3.5, 3.5])
    assert found.quantiles.shape == (2, 5, len(LEVELS))


def test_covariates_stand_beside_all_targets() -> None:
    session = Sums(TOGETHER)
    found = forecast_series(
        session, [[1.0, 2.0], [3.0, 4.0]], 3, past_covariates=[10.0, 20.0],
        future_covariates=[[1.0, 1.0, 1.0, 1.0, np.nan]],
    )  # fmt: skip
    (call,) = session.calls
    assert call["context"].shape == (1, 2, 2)
    assert call["past_covariates"].shape == (1, 1, 2)
    assert call["future_covariates"].shape == (1, 1, 5)
    assert call["groups"].shape == (1, 4)
    np.testing.assert_allclose(found.median[:, 0], [3 + 34.5, 7 + 34.5])
    alone = forecast_series(session, [[1.0, 2.0], [3.0, 4.0]], 3, together=True)
    assert session.calls[-1]["context"].shape == (1, 2, 2)
    np.testing.assert_allclose(alone.median[:, 0], [3.5, 7.5])


@pytest.mark.parametrize(
    ("series", "options", "error", "message"),
    [
        ([1.0], {"horizon": 0}, OptionError, "0 is not 1 or more"),
        ([1.0], {"batch_size": 0}, OptionError, "0 is not 1 or more"),
        ([1.0], {"rollout": "guess"}, OptionError, "guess is not one of carried, rerun"),
        ([1.0], {"together": True}, OptionError, "tirex forecasts every series by itself"),
        ([1.0], {"past_covariates": [1.0]}, OptionError, "every series by itself"),
        ([], {}, InputError, "series: there is none"),
        ([[]], {}, InputError, r"series 0: shape \[0\], expected \[length\]"),
        ([[1.0], [[1.0]]], {}, InputError, r"series 1: shape \[1, 1\]"),
        ([[1.0], [np.inf]], {}, InputError, "series 1: holds infinite numbers"),
        ([["a"]], {}, InputError, "series 0: holds"),
        ("12", {}, InputError, "series: holds"),
    ],
)
def test_what_does_not_fit_is_refused(
    series: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    session = Sums(ONE_BY_ONE)
    with pytest.raises(error, match=message):
        forecast_series(session, series, **{"horizon": 3, **options})
    assert not session.calls


@pytest.mark.parametrize(
    ("series", "options", "error", "message"),
    [
        ([1.0, 2.0], {"horizon": 11}, OptionError, "11 is beyond the 10 steps of this model"),
        ([[1.0], [1.0, 2.0]], {"together": True}, InputError, "have one length"),
        (
            [1.0, 2.0],
            {"past_covariates": [1.0]},
            InputError,
            "past_covariates: 1 steps, expected 2",
        ),
        ([1.0], {"future_covariates": [1.0]}, InputError, "future_covariates: 1 steps, expected 4"),
    ],
)
def test_what_does_not_fit_beside_each_other_is_refused(
    series: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        forecast_series(Sums(TOGETHER), series, **{"horizon": 3, **options})


def test_a_level_that_the_model_does_not_have() -> None:
    found = forecast_series(Sums(ONE_BY_ONE), [1.0], 2)
    with pytest.raises(OptionError, match=r"0\.25 is not one of 0\.1, 0\.5, 0\.9"):
        found.quantile(0.25)


def test_a_model_of_another_kind_forecasts_nothing() -> None:
    session = Sums(replace(ONE_BY_ONE, forecast=None))
    with pytest.raises(BundleError, match="forecaster: is no forecaster"):
        forecast_series(session, [1.0], 2)
