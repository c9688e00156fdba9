"""A vector for every position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class PositionEmbedding:
    """x + weight of x [B,T,D], where T is ``positions``."""

    positions: int
    model_size: int
    pointwise: ClassVar[bool] = False

    def weights(self) -> dict[str, WeightSpec]:
        """The table [T,D]."""
        return {"weight": WeightSpec((self.positions, self.model_size))}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
