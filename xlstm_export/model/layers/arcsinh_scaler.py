"""Standardisation of series with missing values, optionally squashed by arcsinh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class ArcsinhScaler:
    """x [R,L] float32 to arcsinh((x - loc) / scale); NaN stays NaN.

    loc and scale [R,1] are mean and standard deviation of what is there, 0 and 1 where nothing is,
    scale at least ``eps``. Not ``squashes``: without the arcsinh. ``spares_binary``: series of
    zeros and ones alone stay as they are. Gives ``scaler.l`` and ``scaler.s``, and where it spares
    binary series ``scaler.b`` (bool [R,1]), by which forecasts are scaled back.
    """

    eps: float
    squashes: bool
    spares_binary: bool = False
    pointwise: ClassVar[bool] = False

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{'arcsinh' if self.squashes else 'standard'} scaler, deviation >= {self.eps:g}"

    def weights(self) -> dict[str, WeightSpec]:
        """None."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
