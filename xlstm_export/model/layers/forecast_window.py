"""The steps and rows of a model of several series that are its forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class ForecastWindow:
    """x [R,T,D] of ``model.variates`` to [targets,N,D]: the last ``patches`` N before the last.

    Each patch foretells the next, so the last one of the context begins the forecast.
    """

    patches: int
    pointwise: ClassVar[bool] = False

    def weights(self) -> dict[str, WeightSpec]:
        """None."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
