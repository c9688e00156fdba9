"""Vectors of patches to quantiles in the scale of the series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class VariateQuantiles:
    """x [targets, N, count*P] of ``model.variates`` to float32 [B, targets, horizon, count].

    Scaled back as the ArcsinhScaler at ``scaler`` scaled; sinh is of values within ``limit``. The
    horizon is what ``future_covariates`` has beyond the context, at most N*P.
    """

    count: int
    patch_size: int
    scaler: str
    squashed: bool
    spares_binary: bool
    limit: float
    pointwise: ClassVar[bool] = False

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.count} quantiles"

    def weights(self) -> dict[str, WeightSpec]:
        """None."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
