"""A network of one hidden layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec
from xlstm_export.model.layers.feed_forward import Activation


@dataclass(frozen=True)
class MLP:
    """out(act(hidden(x))) of x [...,D]."""

    model_size: int
    hidden_size: int
    activation: Activation
    pointwise: ClassVar[bool] = True

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.activation} network {self.hidden_size}"

    def weights(self) -> dict[str, WeightSpec]:
        """hidden [U,D], out [D,U]."""
        return {
            "hidden.weight": WeightSpec((self.hidden_size, self.model_size), low_bit="matrix"),
            "out.weight": WeightSpec((self.model_size, self.hidden_size), low_bit="matrix"),
        }

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
