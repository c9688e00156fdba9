"""The mLSTM of the block stack around ``XlstmMLSTM``.

x ── up ── inner ─ conv+silu ─ q,k ─┐
     │            └───────────── v ─ mLSTM ── head norm + skip * conv
     │                  i,f from q,k,v               │
     └─ z ─ silu ──────────────────────────────────  * ─ out
"""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.activation import silu
from xlstm_export.lowering.causal_conv import causal_conv
from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.grid_conv import grid_conv
from xlstm_export.lowering.linear import (
    block_diagonal,
    gates_by_group,
    linear,
    packed_width,
    ungroup,
)
from xlstm_export.lowering.mlstm_cell import GATES, mlstm_cell
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.up_projected_mlstm import UpProjectedMLSTM


def emit(g: Emitter, normed: ir.Value, layer: UpProjectedMLSTM, place: Place) -> ir.Value:
    """normed [B,T,D] float32 to [B,T,D]."""
    with g.within(place.scope):
        return _mlstm(g, g.cast(normed, g.dtype), layer, place)


def _mlstm(g: Emitter, x: ir.Value, layer: UpProjectedMLSTM, place: Place) -> ir.Value:
    weights, heads = place.weights, layer.cell.heads
    inner, z = linear(g, x, weights, ("up", "z"))
    conv = _convolved(g, inner, layer, place)
    width = packed_width(layer.inner_size // layer.block_size, layer.block_size)
    qk = block_diagonal(g, conv, weights, ("q", "k"), width)
    values = block_diagonal(g, inner, weights, ("v",), width)
    i, f = gates_by_group(g, (qk, values), weights, GATES, (2, 1), width)
    qkv = [*ungroup(g, qk, width, 2, heads), *ungroup(g, values, width, 1, heads)]
    h = mlstm_cell(g, qkv, (i, f), layer.cell, layer.head_norm_eps, place)
    skip = g.weight(f"{g.scope}/skip.weight", weights["skip.weight"])
    h = g.op("Mul", g.op("Add", h, g.op("Mul", conv, skip)), silu(g, z))
    return linear(g, h, weights, ("out",))[0]


def _convolved(g: Emitter, inner: ir.Value, layer: UpProjectedMLSTM, place: Place) -> ir.Value:
    """silu(conv(inner)) [B,T,E]."""
    if layer.grid is not None:
        return silu(g, grid_conv(g, inner, layer.grid, layer.conv_width, place))
    return causal_conv(g, inner, place) if layer.conv_width > 0 else silu(g, inner)
