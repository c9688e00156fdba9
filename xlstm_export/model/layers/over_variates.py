"""Layers that work across the series of a batch entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import Layer, LayerState, WeightSpec


@dataclass(frozen=True)
class OverVariates:
    """x [R,T,D] of ``model.variates``, seen by ``inner`` (name, layer) in turn as [B,T,V,D].

    A variate that is alone in its group, as the layer at ``variates`` says, stays as it is.
    ``inner`` is not computed for entries of one variate.
    """

    inner: tuple[tuple[str, Layer], ...]
    variates: str
    pointwise: ClassVar[bool] = False

    def parts(self, path: str) -> tuple[tuple[str, Layer], ...]:
        """Its layers, below its path."""
        return tuple((f"{path}.{name}", layer) for name, layer in self.inner)

    def weights(self) -> dict[str, WeightSpec]:
        """Its parts hold them."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """Its parts hold them."""
        return ()
