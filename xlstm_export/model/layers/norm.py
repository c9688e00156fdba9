"""Layer norm and RMS norm over the model dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class Norm:
    """x [B,T,D] to float32 [B,T,D]; rms: no mean is subtracted. Weights are plain (not w - 1)."""

    kind: Literal["rms", "layer"]
    eps: float
    size: int
    pointwise: ClassVar[bool] = True

    def weights(self) -> dict[str, WeightSpec]:
        """Statistics and affine part are float32."""
        return {
            "weight": WeightSpec((self.size,), stays_float32=True),
            "bias": WeightSpec((self.size,), stays_float32=True, optional=True),
        }

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
