"""A forecaster that also foretells the negated series, and averages both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import Layer, LayerState, WeightSpec


@dataclass(frozen=True)
class Mirrored:
    """All inputs of ``model.variates`` and their negatives through ``inner``, layers by path.

    y and y' [B,V,H,Q] become (y_q - y'_(1-q)) / 2: quantile q of a series is that of 1 - q of its
    negative, negated. ``opposite`` is the number of 1 - q for each q.
    """

    inner: tuple[tuple[str, Layer], ...]
    opposite: tuple[int, ...]
    pointwise: ClassVar[bool] = False
    takes_float32: ClassVar[bool] = True

    def parts(self, path: str) -> tuple[tuple[str, Layer], ...]:
        """Its layers, where they would stand without it."""
        return self.inner

    def weights(self) -> dict[str, WeightSpec]:
        """Its parts hold them."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """Its parts hold them."""
        return ()
