"""What is drawn for forecasters: every kind of series, calls that begin and go on."""

from __future__ import annotations

import numpy as np

from tests.model_cases import BY_ID, Library
from xlstm_export.validation.inputs import draw_rollouts

CASE = BY_ID["tirex-small"]


def test_calls_begin_short_long_and_whole_and_go_on_by_patches(library: Library) -> None:
    spec = library.checkpoint(CASE).spec
    assert spec.forecast is not None
    context, patch = spec.forecast.context, spec.forecast.patch
    rollouts = draw_rollouts(spec, 8, seed=3)
    begun = [rollout[0]["context"].shape[1] for rollout in rollouts]
    assert min(begun) < patch
    assert max(begun) > context
    assert context in begun
    later = [call["context"] for rollout in rollouts for call in rollout[1:]]
    assert all(x.shape[1] % patch == 0 for x in later)
    assert any(np.isnan(x).all() for x in later)
    assert any(not np.isnan(x).any(axis=1).all() for x in later)


def test_every_kind_of_series_is_among_the_first_rows(library: Library) -> None:
    spec = library.checkpoint(CASE).spec
    rows = [row for rollout in draw_rollouts(spec, 2, seed=0) for row in rollout[0]["context"]]
    assert any(np.isnan(row).any() and not np.isnan(row).all() for row in rows)
    assert any(np.ptp(row) == 0 and row[0] != 0 for row in rows)
    assert any((row == 0).all() for row in rows)
    assert any(np.ptp(row) > 0 for row in rows)


def test_a_seed_is_a_series(library: Library) -> None:
    spec = library.checkpoint(CASE).spec
    first, again, other = (draw_rollouts(spec, 3, seed)[0][0]["context"] for seed in (1, 1, 2))
    assert np.array_equal(first, again, equal_nan=True)
    assert not np.array_equal(first, other, equal_nan=True)
