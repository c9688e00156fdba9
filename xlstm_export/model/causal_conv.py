"""The causal convolution in front of two kinds of layer: its weights and its state."""

from __future__ import annotations

from xlstm_export.model.layer import LayerState, WeightSpec


def conv_weights(channels: int, width: int) -> dict[str, WeightSpec]:
    """Kernel [D,W] and bias [D]; nothing for width 0. The bias meets float32 states."""
    if not width:
        return {}
    return {
        "conv.weight": WeightSpec((channels, width)),
        "conv.bias": WeightSpec((channels,), stays_float32=True),
    }


def conv_states(channels: int, width: int) -> tuple[LayerState, ...]:
    """The last W-1 inputs; nothing for width 0."""
    return (LayerState("conv", "x", (width - 1, channels)),) if width else ()


def conv_words(width: int) -> str:
    """How it is told in a line about its layer; empty for width 0."""
    return f", convolution {width}" if width else ""
