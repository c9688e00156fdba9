"""Attention between series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class VariateAttention:
    """softmax(q k^T / sqrt(D/N)) v of x [B,T,V,D] over the variates V, with N heads, each step by
    itself.

    A variate sees those of its own group, a covariate no target, as the layer at ``variates`` says.
    ``normed``: q and k are divided by their root mean square over the head, with ``eps`` under the
    root.
    """

    model_size: int
    heads: int
    normed: bool
    eps: float
    variates: str
    pointwise: ClassVar[bool] = False

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"attention between variates, {self.heads} heads"

    def weights(self) -> dict[str, WeightSpec]:
        """q, k, v and out, each [D,D]."""
        square = WeightSpec((self.model_size, self.model_size), low_bit="matrix")
        return {f"{name}.weight": square for name in ("q", "k", "v", "out")}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
