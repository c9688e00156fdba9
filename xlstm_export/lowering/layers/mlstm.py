"""The mLSTM of xLSTM-7B around ``XlstmMLSTM``.

x ── q,k,v,o ─┐
 └── i,f ── mLSTM ── head norm ── * sigmoid(o) ── out
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.linear import gates, gates_alone, linear, spread_gates
from xlstm_export.lowering.mlstm_cell import GATES, mlstm_cell
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.mlstm import MLSTM
from xlstm_export.model.weights import Weights

_PROJECTIONS = ("q", "k", "v", "output_gate")


def emit(g: Emitter, normed: ir.Value, layer: MLSTM, place: Place) -> ir.Value:
    """normed [B,T,D] float32 to [B,T,D]."""
    with g.within(place.scope):
        return _mlstm(g, normed, layer, place)


def _mlstm(g: Emitter, normed: ir.Value, layer: MLSTM, place: Place) -> ir.Value:
    x, weights = g.cast(normed, g.dtype), place.weights
    if all(weights[f"{name}.weight"].blocks for name in _PROJECTIONS):
        q, k, v, o = linear(g, x, weights, _PROJECTIONS)
        i, f = gates_alone(g, normed, weights, GATES)
    else:
        q, k, v, o, i, f = _beside_gates(g, x, normed, weights)
    heads = [g.reshape(x, 0, 0, layer.cell.heads, -1) for x in (q, k, v)]
    h = mlstm_cell(g, heads, (i, f), layer.cell, layer.head_norm_eps, place)
    h = g.op("Mul", g.op("Sigmoid", o), h)
    return linear(g, h, weights, ("out",))[0]


def _beside_gates(
    g: Emitter, x: ir.Value, normed: ir.Value, weights: Weights
) -> Sequence[ir.Value]:
    """q, k, v, o of x and gates i, f of ``normed``: of float32 numbers one product."""
    matrix, pieces = spread_gates(weights, GATES)
    spread = {**weights, "gates.weight": matrix}
    if g.dtype == "float32":
        *qkvo, partial = linear(g, x, spread, (*_PROJECTIONS, "gates"))
    else:
        qkvo = list(linear(g, x, spread, _PROJECTIONS))
        (partial,) = linear(g, normed, spread, ("gates",))
    return *qkvo, *gates(g, partial, weights, GATES, pieces)
