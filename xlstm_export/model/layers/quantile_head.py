"""Vectors to quantiles of a forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import Layer, LayerState, WeightSpec
from xlstm_export.model.layers.residual_mlp import ResidualMLP


@dataclass(frozen=True)
class QuantileHead:
    """x [B,T,D] to float32 quantiles [B,steps,Q] of the patch after each token, Q in ``levels``.

    ``inner`` yields Q rows of ``patch_size`` steps, in the scale that the layer at the path
    ``scaler`` has measured. A call that begins forecasts from its last token alone, so that steps
    is ``patch_size``; one that continues from every token.
    """

    inner: ResidualMLP
    levels: tuple[float, ...]
    patch_size: int
    scaler: str
    pointwise: ClassVar[bool] = False

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{len(self.levels)} quantiles of {self.patch_size} steps"

    def parts(self, path: str) -> tuple[tuple[str, Layer], ...]:
        """The network, at the path of the whole."""
        return ((path, self.inner),)

    def weights(self) -> dict[str, WeightSpec]:
        """Its part holds them."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
