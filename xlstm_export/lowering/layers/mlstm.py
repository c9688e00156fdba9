"""The two mLSTM mixers around ``XlstmMLSTM``.

MLSTMMixer             UpProjectedMLSTMMixer
x ── q,k,v,o ─┐        x ── up ── inner ─ conv+silu ─ q,k ─┐
 └── i,f ── mLSTM        │            └───────────── v ─── mLSTM ── head norm
        head norm        │                   i,f from q,k,v        + skip * conv
   * sigmoid(o) ─ out    └─ z ─ silu ──────────────────────────── * ─ out
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.layers.activation import silu
from xlstm_export.lowering.layers.conv import causal_conv
from xlstm_export.lowering.layers.linear import (
    block_diagonal,
    gates,
    gates_by_group,
    linear,
    packed_width,
    spread_gates,
    ungroup,
)
from xlstm_export.lowering.layers.norm import head_norm
from xlstm_export.lowering.layers.state_io import StateIO
from xlstm_export.model.spec import MLSTMCell, MLSTMMixer, UpProjectedMLSTMMixer
from xlstm_export.model.weights import Weights

_PROJECTIONS = ("q", "k", "v", "output_gate")
_GATES = ("input_gate", "forget_gate")


def mlstm_mixer(
    g: Emitter, normed: ir.Value, mixer: MLSTMMixer, weights: Weights, layer: int, states: StateIO
) -> ir.Value:
    """normed [B,T,D] float32 to [B,T,D]."""
    x = g.cast(normed, g.dtype)
    matrix, pieces = spread_gates(weights, _GATES)
    spread = {**weights, "gates.weight": matrix}
    if g.dtype == "float32":
        q, k, v, o, partial = linear(g, x, spread, (*_PROJECTIONS, "gates"), g.dtype)
    else:
        q, k, v, o = linear(g, x, spread, _PROJECTIONS, g.dtype)
        (partial,) = linear(g, normed, spread, ("gates",), "float32")
    i, f = gates(g, partial, weights, _GATES, pieces)
    heads = [g.reshape(x, 0, 0, mixer.cell.heads, -1) for x in (q, k, v)]
    h = _cell(g, heads, (i, f), mixer.cell, layer, states)
    h = head_norm(g, h, mixer.cell.heads, mixer.cell.v_size, mixer.head_norm_eps, weights)
    h = g.op("Mul", g.op("Sigmoid", o), h)
    return linear(g, h, weights, ("out",), g.dtype)[0]


def up_projected_mixer(
    g: Emitter, normed: ir.Value, mixer: UpProjectedMLSTMMixer, weights: Weights, layer: int,
    states: StateIO,
) -> ir.Value:  # fmt: skip
    """normed [B,T,D] float32 to [B,T,D]."""
    inner, z = linear(g, g.cast(normed, g.dtype), weights, ("up", "z"), g.dtype)
    has_conv = mixer.conv_width > 0
    conv = causal_conv(g, inner, weights, layer, states) if has_conv else silu(g, inner)
    blocks, size = mixer.inner_size // mixer.block_size, mixer.block_size
    width = packed_width(blocks, size)
    heads = mixer.cell.heads
    qk = block_diagonal(g, conv, weights, ("q", "k"), width)
    values = block_diagonal(g, inner, weights, ("v",), width)
    i, f = gates_by_group(g, (qk, values), weights, _GATES, (2, 1), width)
    qkv = [*ungroup(g, qk, width, 2, heads), *ungroup(g, values, width, 1, heads)]
    h = _cell(g, qkv, (i, f), mixer.cell, layer, states)
    h = head_norm(g, h, mixer.cell.heads, mixer.cell.v_size, mixer.head_norm_eps, weights)
    skip = g.weight(f"{g.scope}/skip.weight", weights["skip.weight"])
    h = g.op("Mul", g.op("Add", h, g.op("Mul", conv, skip)), silu(g, z))
    return linear(g, h, weights, ("out",), g.dtype)[0]


def _cell(
    g: Emitter, qkv: Sequence[ir.Value], gates: Sequence[ir.Value], cell: MLSTMCell, layer: int,
    states: StateIO,
) -> ir.Value:  # fmt: skip
    """h [B,T,N,V] from q, k, v [B,T,N,*] and float32 gates [B,T,N]."""
    past = states.take(layer, "mlstm", "Cnm")
    h, *present = g.custom(
        "XlstmMLSTM",
        [*qkv, *gates, *past, states.lengths],
        gate_soft_cap=cell.gate_soft_cap,
        eps=cell.eps,
        scale_side=cell.scale_side,
        chunk_size=cell.chunk_size,
    )
    states.give(layer, "mlstm", "Cnm", present)
    return h
