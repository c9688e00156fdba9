"""A sequence to one vector."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.end_pooling import EndPooling


def emit(g: Emitter, x: ir.Value, layer: EndPooling, place: Place) -> ir.Value:
    """x [B,T,D] to float32 [B,D] or [B,2D]."""
    with g.within(place.scope):
        ends = g.op("Gather", g.cast(x, "float32"), g.ints(0, -1), axis=1, role="ends")
        if layer.joined == "mean":
            return g.is_float32(g.op("ReduceMean", ends, g.ints(1), keepdims=0))
        return g.is_float32(g.reshape(ends, 0, -1))
