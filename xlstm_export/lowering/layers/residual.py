"""A layer beside the identity."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place, emit_layer
from xlstm_export.model.layers.residual import Residual


def emit(g: Emitter, x: ir.Value, layer: Residual, place: Place) -> ir.Value:
    """x + inner(norm(x)) of x [B,T,D]."""
    result = x
    for path, part in layer.parts(place.path):
        result = emit_layer(g, result, part, place.at(path))
    with g.within(place.scope):
        return g.op("Add", x, result, role="residual")
