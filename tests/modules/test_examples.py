"""Numbers like the examples' are numbers that a network takes; of one alone little can be said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xlstm_export as xe
from tests.modules.networks import Classifier, Detector, made
from xlstm_export.modules.examples import is_one_number, numbers_like

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    "example",
    [
        RANDOM.random((2, 9)).astype(np.float32),
        np.array([[0, 1, 1]], np.float16),
        np.array([[1, np.nan, 2, np.nan]], np.float32),
        np.array([[-3, 7]], np.int32),
        np.array([[np.iinfo(np.int64).max, 5]]),
    ],
)
def test_they_are_numbers_that_the_example_could_hold(example: np.ndarray) -> None:
    drawn = numbers_like(example, (50, 40), RANDOM)
    assert (drawn.shape, drawn.dtype) == ((50, 40), example.dtype)
    if example.dtype.kind == "i":
        assert (drawn.min() >= example.min(), drawn.max() <= example.max()) == (True, True)
    else:
        assert np.isin(drawn[np.isfinite(drawn)], example).all()
    assert np.isclose(np.isnan(drawn).mean(), np.isnan(example).mean(), atol=0.1)
    assert len(np.unique(drawn)) > 1


@pytest.mark.parametrize("number", [0.0, 1.0])
def test_around_one_number_others_are_drawn(number: float) -> None:
    drawn = numbers_like(np.full((1, 3), number, np.float32), (100, 100), RANDOM)
    assert is_one_number(np.full((1, 3), number))
    assert not is_one_number(np.full((1, 3), np.nan))
    assert abs(drawn.mean() - number) < 0.1
    assert abs(drawn.std() - 1) < 0.1


def test_an_example_of_zeros_hides_no_wrong_weight(tmp_path: Path) -> None:
    """Of the first layer's weights, times zero, nothing would be seen."""
    network, zeros = made(Detector), torch.zeros(2, 12, 5)
    bundle = xe.export_module(network, zeros, tmp_path / "out", states=True)
    report = xe.validate_module(bundle, network, zeros, threads=1)
    assert report.verdict == "validated", report.in_order()[0]
    assert any("holds the number 0 alone, and numbers around it were" in n for n in report.notes)
    with torch.no_grad():
        network.up.weight[0, 0] += 0.05
    assert xe.validate_module(bundle, network, zeros, threads=1).verdict == "failed"


def test_one_token_alone_is_no_comparison(tmp_path: Path) -> None:
    network, ids = made(Tokens), torch.zeros(2, 9, dtype=torch.int64)
    bundle = xe.export_module(network, ids, tmp_path / "out")
    with pytest.raises(xe.InputError, match=r"^x: its example holds the number 0 alone, "):
        xe.validate_module(bundle, network, ids, threads=1)


def test_constant_steps_do_not_hide_that_a_step_sees_later_ones(tmp_path: Path) -> None:
    with pytest.raises(xe.UnsupportedModelError, match="a step sees later ones"):
        xe.export_module(made(Centred), torch.ones(2, 12, 5), tmp_path / "out", states=True)


class Tokens(nn.Module):
    """A classifier of ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner = nn.Embedding(50, 5), Classifier()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.embedding(x))


class Centred(nn.Module):
    """Less its mean over all steps, a constant input is zero in any part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Detector()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x - x.mean(1, keepdim=True))["score"]
