"""A sequence to one vector: its two ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class EndPooling:
    """First and last of x [B,T,D], in float32: their mean [B,D], or side by side [B,2D]."""

    joined: Literal["mean", "concat"]
    pointwise: ClassVar[bool] = False

    def weights(self) -> dict[str, WeightSpec]:
        """None."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
