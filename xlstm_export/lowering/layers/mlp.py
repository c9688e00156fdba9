"""A network of one hidden layer."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.activation import activate
from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.linear import linear
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.mlp import MLP


def emit(g: Emitter, x: ir.Value, layer: MLP, place: Place) -> ir.Value:
    """out(act(hidden(x))) of x [...,D]."""
    with g.within(place.outer_scope):
        x = g.cast(x, g.dtype)
    with g.within(place.scope):
        (hidden,) = linear(g, x, place.weights, ("hidden",))
        return linear(g, activate(g, hidden, layer.activation), place.weights, ("out",))[0]
