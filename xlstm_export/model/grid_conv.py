"""The convolution over a grid of patches, where a layer has one: its weights."""

from __future__ import annotations

from xlstm_export.model.layer import WeightSpec


def grid_conv_weights(channels: int, width: int) -> dict[str, WeightSpec]:
    """Kernel [D,1,W,W] of each channel by itself, and bias [D]."""
    return {
        "conv.weight": WeightSpec((channels, 1, width, width)),
        "conv.bias": WeightSpec((channels,)),
    }


def grid_conv_words(width: int, grid: tuple[int, int]) -> str:
    """How it is told in a line about its layer."""
    return f", convolution {width}x{width} over {grid[0]}x{grid[1]}"
