"""Nearest-neighbour search, a task of the xLSTM paper (Beck et al. 2024).

A sequence starts with a reference vector. Then come vectors, each with a value; after each, the
value of the vector nearest to the reference so far is asked for. A model has to keep a value and
to revise what it keeps as soon as a nearer vector comes.
"""

import torch
from torch import Tensor

DIMENSIONS = 2
INPUTS = DIMENSIONS + 2
"""Of a step: the vector, its value, and 1 at the reference, which has the value 0."""

TRAIN_LENGTH, TEST_LENGTHS = 32, (32, 64)
TEST_SEQUENCES, TEST_SEED = 2048, 10_000


def random_sequences(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs [count, length, INPUTS], all uniform in [0, 1], and answers [count, length - 1].

    Answer t is that after step t + 1, as the reference itself asks nothing.
    """
    vectors = torch.rand(count, length, DIMENSIONS, generator=generator)
    values = torch.rand(count, length, generator=generator)
    values[:, 0] = 0.0
    is_reference = torch.zeros(count, length)
    is_reference[:, 0] = 1.0
    distances = (vectors[:, 1:] - vectors[:, :1]).norm(dim=-1)
    places = torch.arange(length - 1).expand_as(distances)
    is_nearest = distances == distances.cummin(dim=1).values
    nearest = torch.where(is_nearest, places, 0).cummax(dim=1).values
    inputs = torch.cat([vectors, values[..., None], is_reference[..., None]], dim=-1)
    return inputs, values[:, 1:].gather(1, nearest)


def test_sequences(length: int) -> tuple[Tensor, Tensor]:
    """The same ones for every model."""
    generator = torch.Generator().manual_seed(TEST_SEED + length)
    return random_sequences(TEST_SEQUENCES, length, generator)
