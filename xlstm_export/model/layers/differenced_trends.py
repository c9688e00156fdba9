"""Series with a trend, as steps from one value to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec

FEWEST = 4
"""Values that a line is fitted to at least."""
LEAST_DEVIATION = 1e-12
"""A series that deviates less from its mean has no trend."""


@dataclass(frozen=True)
class DifferencedTrends:
    """x [B,V,T] float32: where a straight line explains a series, x_t - x_(t-1), and 0 at first.

    The line is fitted by least squares to what is there, at least ``FEWEST`` values. It explains
    the series where it rises by ``least_rise`` of its deviations or more from end to end, and takes
    ``least_r2`` of its variance. Gives ``trend.d`` (bool [B,V,1]), whether it does, and
    ``trend.v``, the last value.
    """

    least_rise: float
    least_r2: float
    pointwise: ClassVar[bool] = False
    takes_float32: ClassVar[bool] = True

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"differences where a line explains {self.least_r2:.0%} of a series"

    def weights(self) -> dict[str, WeightSpec]:
        """None."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
