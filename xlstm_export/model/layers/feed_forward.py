"""Gated feed-forward network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from xlstm_export.model.layer import LayerState, WeightSpec

Activation = Literal["gelu", "relu", "relu^2", "selu", "sigmoid", "swish"]


@dataclass(frozen=True)
class FeedForward:
    """down(act(gate(x)) * up(x)) of x [B,T,D]."""

    model_size: int
    hidden_size: int
    activation: Activation
    pointwise: ClassVar[bool] = True

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.activation} feed-forward {self.hidden_size}"

    def weights(self) -> dict[str, WeightSpec]:
        """gate, up [U,D]; down [D,U]."""
        wide, size = self.hidden_size, self.model_size
        return {
            "gate.weight": WeightSpec((wide, size), low_bit="matrix"),
            "up.weight": WeightSpec((wide, size), low_bit="matrix"),
            "down.weight": WeightSpec((size, wide), low_bit="matrix"),
            "gate.bias": WeightSpec((wide,), optional=True),
            "up.bias": WeightSpec((wide,), optional=True),
            "down.bias": WeightSpec((size,), optional=True),
        }

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
