"""A matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class Projection:
    """x [...,in] to [...,out], in the type of the activations."""

    in_size: int
    out_size: int
    pointwise: ClassVar[bool] = True

    def weights(self) -> dict[str, WeightSpec]:
        """[out,in], and a bias [out] where there is one."""
        return {
            "out.weight": WeightSpec((self.out_size, self.in_size), low_bit="matrix"),
            "out.bias": WeightSpec((self.out_size,), optional=True),
        }

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
