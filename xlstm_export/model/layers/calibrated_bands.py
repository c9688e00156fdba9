"""The width of a forecast, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class Band:
    """A factor ``spread`` * t^``growth`` at step t = 1, 2, ..."""

    spread: float
    growth: float


@dataclass(frozen=True)
class CalibratedBands:
    """x [B,V,H,Q] float32, quantiles of values: distances from the median are widened by ``band``.

    Of series that the DifferencedTrends at ``trend`` ("": there is none) differenced, x are
    quantiles of steps. Their medians are summed up from the last value, and the distances by the
    root of their summed squares, widened by ``step_band``, to the side where their sum is.
    """

    quantiles: int
    longest: int
    band: Band
    step_band: Band
    trend: str = ""
    pointwise: ClassVar[bool] = False

    @property
    def median(self) -> int:
        """Which quantile the others are measured from."""
        return self.quantiles // 2

    def weights(self) -> dict[str, WeightSpec]:
        """None."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
