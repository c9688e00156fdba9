"""A layer that reads a sequence from its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import Layer, LayerState, WeightSpec


@dataclass(frozen=True)
class Flipped:
    """flip(inner(flip(x))) of x [B,T,D], flipped along T; ``inner`` stands at the same path."""

    inner: Layer
    pointwise: ClassVar[bool] = False

    def parts(self, path: str) -> tuple[tuple[str, Layer], ...]:
        """The inner layer."""
        return ((path, self.inner),)

    def weights(self) -> dict[str, WeightSpec]:
        """Its part holds them."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """Its part holds them."""
        return ()
