"""Nearest-neighbour search: the bundles make PyTorch's errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.recipes.scripts import RECIPES, script

FOLDER = RECIPES / "nearest_neighbour"
MOST_BYTES = 300_000


def test_the_answers_are_the_values_of_the_nearest_vectors() -> None:
    import torch

    inputs, answers = script("nearest_neighbour", "task").random_sequences(
        8, 20, torch.Generator().manual_seed(1)
    )
    for row, wanted in zip(inputs.numpy(), answers.numpy(), strict=True):
        distances = np.linalg.norm(row[1:, :2] - row[0, :2], axis=1)
        nearest = [distances[: end + 1].argmin() for end in range(len(wanted))]
        assert (row[1:, 2][nearest] == wanted).all()


@pytest.mark.parametrize("name", ["slstm", "mlstm"])
def test_a_bundle_makes_the_error_of_torch(name: str, tmp_path: Path) -> None:
    """To four digits, at the length of training and at twice that."""
    found = script("nearest_neighbour", "compare").compare(name, FOLDER / name, tmp_path / name)
    assert list(found) == [32, 64]
    for theirs, ours in found.values():
        assert ours == pytest.approx(theirs, rel=5e-5)


@pytest.mark.parametrize("name", ["slstm", "mlstm"])
def test_exponential_gates_revise_what_an_lstm_does_not(name: str, tmp_path: Path) -> None:
    compare = script("nearest_neighbour", "compare").compare
    lstm = compare("lstm", FOLDER / "lstm", tmp_path / "lstm")
    ours = compare(name, FOLDER / name, tmp_path / name)
    assert ours[32][0][0] < lstm[32][0][0] / 2


def test_shipped_files_are_small() -> None:
    files = list(FOLDER.rglob("*.safetensors"))
    assert len(files) == 3
    assert all(path.stat().st_size <= MOST_BYTES for path in files)
