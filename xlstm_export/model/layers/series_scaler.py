"""The window of a series and its scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec

FLOOR = 1e-5
"""Of a series that does not move: its spread is |loc| + FLOOR."""

LETTERS = ("loc", "scale")


@dataclass(frozen=True)
class SeriesScaler:
    """(x - loc) / scale of x [B,L], float32, NaN where an observation is missing.

    A call that begins takes the last ``context_length`` observations, fills up with NaN in front,
    and measures loc and scale, the mean and standard deviation of what is there: spread 0 becomes
    |loc| + FLOOR, and a series of NaN alone has loc 0, scale 1. The mean is corrected by that of
    the differences from it, so that a constant is its own mean in float32 as well. A call that
    continues scales its observations by the same loc and scale.

    Source: tirex-ts, models/patcher.py (StandardScaler) and models/tirex.py (context length).
    """

    context_length: int
    pointwise: ClassVar[bool] = False
    takes_float32: ClassVar[bool] = True

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"series scaler over {self.context_length} observations"

    def weights(self) -> dict[str, WeightSpec]:
        """None."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """loc and scale [1], for what continues and for the head."""
        return tuple(LayerState("scaler", letter, (1,)) for letter in LETTERS)
