"""A series cut into patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class Patches:
    """x [B,L], L a multiple of ``size``, to tokens [B,L/size,2*size].

    A token is its observations, 0 for those missing (NaN), and then a mask: 1 where there is one.
    """

    size: int
    pointwise: ClassVar[bool] = False

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"patches of {self.size}"

    def weights(self) -> dict[str, WeightSpec]:
        """None."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
