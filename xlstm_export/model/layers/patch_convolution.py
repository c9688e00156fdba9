"""Images to patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class PatchConvolution:
    """Images [B,C,H,W] to patches [B,T,D], row by row: a convolution without padding.

    ``patch`` and ``stride`` are (height, width); patches overlap where the stride is smaller.
    """

    channels: int
    patch: tuple[int, int]
    stride: tuple[int, int]
    model_size: int
    pointwise: ClassVar[bool] = False

    @property
    def words(self) -> str:
        """What it is, for people."""
        sizes = [f"{high}x{wide}" for high, wide in (self.patch, self.stride)]
        return f"patches of {sizes[0]}, one every {sizes[1]}"

    def weights(self) -> dict[str, WeightSpec]:
        """Kernel [D,C,height,width] and bias [D]."""
        return {
            "weight": WeightSpec((self.model_size, self.channels, *self.patch)),
            "bias": WeightSpec((self.model_size,)),
        }

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
