"""The mLSTM of the block stack: up-projection first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.causal_conv import conv_states, conv_weights, conv_words
from xlstm_export.model.grid_conv import grid_conv_weights, grid_conv_words
from xlstm_export.model.layer import LayerState, WeightSpec
from xlstm_export.model.layers.mlstm import MLSTMCell


@dataclass(frozen=True)
class UpProjectedMLSTM:
    """Pre-up-projection mLSTM of the xLSTM paper (Beck et al. 2024, fig. 11).

    Inner size E = N*K = N*V; q, k, v are block-diagonal [E/P, P(out), P(in)]; the gates see
    cat(q, k, v); ``conv_width`` 0: no convolution. Where the sequence is a ``grid`` (rows, columns)
    of patches, row by row, the convolution is over the grid and centred, and carries no state.
    """

    model_size: int
    cell: MLSTMCell
    inner_size: int
    block_size: int
    conv_width: int
    head_norm_eps: float
    grid: tuple[int, int] | None = None
    pointwise: ClassVar[bool] = False

    @property
    def words(self) -> str:
        """What it is, for people."""
        width, grid = self.conv_width, self.grid
        conv = conv_words(width) if grid is None else grid_conv_words(width, grid)
        return f"mLSTM {self.cell.words}, inner size {self.inner_size}{conv}"

    def weights(self) -> dict[str, WeightSpec]:
        """Projections in the bundle's dtype; gates and head norm in float32."""
        n, inner, size = self.cell.heads, self.inner_size, self.model_size
        conv = conv_weights if self.grid is None else grid_conv_weights
        block = WeightSpec((inner // self.block_size, self.block_size, self.block_size))
        gate = WeightSpec((n, 3 * inner), stays_float32=True)
        gate_bias = WeightSpec((n,), stays_float32=True)
        bias = WeightSpec((inner,), optional=True)
        return {
            "up.weight": WeightSpec((inner, size), low_bit="matrix"),
            "z.weight": WeightSpec((inner, size), low_bit="matrix"),
            "up.bias": bias,
            "z.bias": bias,
            **conv(inner, self.conv_width),
            **{f"{name}.weight": block for name in "qkv"},
            **{f"{name}.bias": bias for name in "qkv"},
            "input_gate.weight": gate,
            "input_gate.bias": gate_bias,
            "forget_gate.weight": gate,
            "forget_gate.bias": gate_bias,
            "head_norm.weight": WeightSpec((inner,), stays_float32=True),
            "head_norm.bias": WeightSpec((inner,), stays_float32=True, optional=True),
            "skip.weight": WeightSpec((inner,)),
            "out.weight": WeightSpec((size, inner), low_bit="matrix"),
            "out.bias": WeightSpec((size,), optional=True),
        }

    def states(self) -> tuple[LayerState, ...]:
        """Those of convolution and cell."""
        width = self.conv_width if self.grid is None else 0
        return (*conv_states(self.inner_size, width), *self.cell.states())
