"""A recurrence that also runs backwards over what is known ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import Layer, LayerState, WeightSpec
from xlstm_export.model.layers.projection import Projection


@dataclass(frozen=True)
class BothWays:
    """x [R,T,D] of ``model.variates``: ``inner``, the same forwards and backwards.

    Rows that are known ahead, and have a value there, become combination(forwards, backwards) of
    [R,T,2D]; the others stay forwards. ``variates`` is the path of the layer that tells them.
    """

    inner: Layer
    combination: Projection
    variates: str
    pointwise: ClassVar[bool] = False

    def parts(self, path: str) -> tuple[tuple[str, Layer], ...]:
        """The recurrence, and what combines its two directions."""
        return (f"{path}.cell", self.inner), (f"{path}.combination", self.combination)

    def weights(self) -> dict[str, WeightSpec]:
        """Its parts hold them."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """Its parts hold them."""
        return ()
