"""A layer that reads a sequence from its end: Slices that step backwards, before it and after."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place, emit_layer
from xlstm_export.model.layers.flipped import Flipped

_BEFORE_THE_FIRST = int(np.iinfo(np.int64).min)
"""Where a Slice that steps backwards ends so that the first element is its last."""


def emit(g: Emitter, x: ir.Value, layer: Flipped, place: Place) -> ir.Value:
    """x [B,T,D] to [B,T,D]."""
    ((path, inner),) = layer.parts(place.path)
    return _flip(g, emit_layer(g, _flip(g, x, place), inner, place.at(path)), place)


def _flip(g: Emitter, x: ir.Value, place: Place) -> ir.Value:
    """x [B,T,D] from its end, float32 where x is."""
    with g.within(place.scope):
        from_last = [g.ints(n) for n in (-1, _BEFORE_THE_FIRST, 1, -1)]
        y = g.op("Slice", x, *from_last, role="flip")  # starts, ends, axes, steps
    return g.is_float32(y) if x in g.float32_values else y
