"""A matrix."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.linear import linear
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.projection import Projection


def emit(g: Emitter, x: ir.Value, layer: Projection, place: Place) -> ir.Value:
    """x [...,in] to [...,out]."""
    with g.within(place.scope):
        x = g.cast(x, g.dtype) if x in g.float32_values else x
        return linear(g, x, place.weights, ("out",))[0]
