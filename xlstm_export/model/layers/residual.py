"""A layer beside the identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import Layer, LayerState, WeightSpec, beside
from xlstm_export.model.layers.norm import Norm


@dataclass(frozen=True)
class Residual:
    """x + inner(norm(x)): ``inner`` stands at the path of the whole, the norm beside it."""

    norm: Norm
    inner: Layer
    norm_name: str
    pointwise: ClassVar[bool] = False

    def parts(self, path: str) -> tuple[tuple[str, Layer], ...]:
        """Norm and inner layer."""
        return (beside(path, self.norm_name), self.norm), (path, self.inner)

    def weights(self) -> dict[str, WeightSpec]:
        """Its parts hold them."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """Its parts hold them."""
        return ()
