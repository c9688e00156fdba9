"""Layers that work across the series of a batch entry."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place, emit_layer
from xlstm_export.lowering.variates import END, part, variates_of
from xlstm_export.model.layers.over_variates import OverVariates
from xlstm_export.model.variates import GROUPS


def emit(g: Emitter, x: ir.Value, layer: OverVariates, place: Place) -> ir.Value:
    """x [R,T,D] to [R,T,D], by way of [B,T,V,D].

    Where entries have one variate, ``inner`` computes on none: it would change nothing.
    """
    with g.within(place.scope):
        variates = variates_of(g, place, GROUPS)
        by_variate = g.op("Concat", variates, g.ints(-1), g.op("Shape", x, start=1), axis=0)
        entries = g.op("Transpose", g.op("Reshape", x, by_variate), perm=[1, 2, 0, 3])
        batch = g.op("Shape", entries, start=0, end=1, role="batch")
        several = g.op("Greater", variates, g.ints(1))
        mixed_up_to = g.op("Where", several, batch, g.ints(0))
        mixed = part(g, entries, 0, mixed_up_to, 0)
    for path, part_layer in layer.parts(place.path):
        mixed = emit_layer(g, mixed, part_layer, place.at(path))
    with g.within(place.scope):
        mixed = g.op("Concat", mixed, part(g, entries, mixed_up_to, END, 0), axis=0)
        (has_others,) = place.given(layer.variates, "variates", "a")
        entries = g.op("Where", has_others, mixed, entries, role="mixed_or_alone")
        rows = g.op("Transpose", entries, perm=[2, 0, 1, 3])
        return g.op("Reshape", rows, g.op("Shape", x))
