"""The mLSTM of xLSTM-7B, and the cell that both mLSTM layers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class MLSTMCell:
    """Constants of the mLSTM recurrence; see ``ops.catalog.MLSTM`` for the attributes.

    N heads of K (queries, keys) and V (values).
    """

    heads: int
    qk_size: int
    v_size: int
    gate_soft_cap: float
    eps: float
    scale_side: Literal[0, 1]
    chunk_size: int = 64

    @property
    def words(self) -> str:
        """Its sizes, for people."""
        cap = f", gates capped at {self.gate_soft_cap:g}" if self.gate_soft_cap else ""
        return f"{self.heads} heads of {self.qk_size}x{self.v_size}{cap}"

    def states(self) -> tuple[LayerState, ...]:
        """C [N,K,V], n [N,K], m [N]."""
        return (
            LayerState("mlstm", "C", (self.heads, self.qk_size, self.v_size)),
            LayerState("mlstm", "n", (self.heads, self.qk_size)),
            LayerState("mlstm", "m", (self.heads,)),
        )


@dataclass(frozen=True)
class MLSTM:
    """All gates from the input, sigmoid output gate on the normed hidden state.

    Source: xLSTM-7B (Beck et al. 2025), fig. 2. Matrices are [out, in].
    """

    model_size: int
    cell: MLSTMCell
    head_norm_eps: float
    pointwise: ClassVar[bool] = False

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"mLSTM {self.cell.words}"

    def weights(self) -> dict[str, WeightSpec]:
        """Projections in the bundle's dtype; gates and head norm in float32."""
        n, size = self.cell.heads, self.model_size
        qk, v = n * self.cell.qk_size, n * self.cell.v_size
        rows = {"q": qk, "k": qk, "v": v, "output_gate": v}
        gate = WeightSpec((n, size), stays_float32=True)
        gate_bias = WeightSpec((n,), stays_float32=True)
        specs = {
            f"{name}.weight": WeightSpec((count, size), low_bit="matrix")
            for name, count in rows.items()
        }
        specs |= {f"{name}.bias": WeightSpec((c,), optional=True) for name, c in rows.items()}
        return specs | {
            "input_gate.weight": gate,
            "input_gate.bias": gate_bias,
            "forget_gate.weight": gate,
            "forget_gate.bias": gate_bias,
            "head_norm.weight": WeightSpec((v,), stays_float32=True),
            "head_norm.bias": WeightSpec((v,), stays_float32=True, optional=True),
            "out.weight": WeightSpec((size, v), low_bit="matrix"),
            "out.bias": WeightSpec((size,), optional=True),
        }

    def states(self) -> tuple[LayerState, ...]:
        """Those of the cell."""
        return self.cell.states()
