"""A network of one hidden layer beside a linear map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec
from xlstm_export.model.layers.feed_forward import Activation


@dataclass(frozen=True)
class ResidualMLP:
    """out(act(hidden(x))) + residual(x) of x [B,T,in] to [B,T,out].

    Source: the patch embedding of TimesFM (Das et al. 2024), as TiRex and TiRex-2 have it at both
    ends.
    """

    in_size: int
    hidden_size: int
    out_size: int
    activation: Activation
    pointwise: ClassVar[bool] = True

    @property
    def words(self) -> str:
        """What it is, for people."""
        sizes = f"{self.in_size} to {self.out_size}"
        return f"residual MLP {sizes}, {self.activation} {self.hidden_size}"

    def weights(self) -> dict[str, WeightSpec]:
        """hidden [H,in]; out [out,H]; residual [out,in]; each with a bias."""
        wide, given, made = self.hidden_size, self.in_size, self.out_size
        return {
            "hidden.weight": WeightSpec((wide, given), low_bit="matrix"),
            "hidden.bias": WeightSpec((wide,)),
            "out.weight": WeightSpec((made, wide), low_bit="matrix"),
            "out.bias": WeightSpec((made,)),
            "residual.weight": WeightSpec((made, given), low_bit="matrix"),
            "residual.bias": WeightSpec((made,)),
        }

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
