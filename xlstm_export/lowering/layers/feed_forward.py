"""Gated feed-forward network: down(act(gate(x)) * up(x))."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.activation import activate
from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.linear import linear
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.feed_forward import FeedForward


def emit(g: Emitter, x: ir.Value, layer: FeedForward, place: Place) -> ir.Value:
    """x [B,T,D] to [B,T,D]; gate and up are one MatMul."""
    with g.within(place.outer_scope):
        x = g.cast(x, g.dtype)
    with g.within(place.scope):
        gate, up = linear(g, x, place.weights, ("gate", "up"))
        hidden = g.op("Mul", activate(g, gate, layer.activation), up)
        return linear(g, hidden, place.weights, ("down",))[0]
