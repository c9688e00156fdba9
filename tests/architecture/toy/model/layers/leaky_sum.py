"""A kind of layer the library has never seen: y_t = decay y_{t-1} + x_t scale, y carried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class LeakySum:
    """decay and scale [D]; the decay meets the state, and so is float32."""

    model_size: int
    pointwise: ClassVar[bool] = False

    def weights(self) -> dict[str, WeightSpec]:
        return {
            "decay": WeightSpec((self.model_size,), stays_float32=True),
            "scale": WeightSpec((self.model_size,)),
        }

    def states(self) -> tuple[LayerState, ...]:
        return (LayerState("leaky", "y", (self.model_size,)),)
