"""A network of one hidden layer beside a linear map: out(act(hidden(x))) + residual(x)."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.activation import activate
from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.linear import linear
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.residual_mlp import ResidualMLP


def emit(g: Emitter, x: ir.Value, layer: ResidualMLP, place: Place) -> ir.Value:
    """x [B,T,in] to [B,T,out]; hidden and residual are one MatMul."""
    with g.within(place.outer_scope):
        x = g.cast(x, g.dtype)
    with g.within(place.scope):
        hidden, residual = linear(g, x, place.weights, ("hidden", "residual"))
        (out,) = linear(g, activate(g, hidden, layer.activation), place.weights, ("out",))
        return g.op("Add", out, residual)
