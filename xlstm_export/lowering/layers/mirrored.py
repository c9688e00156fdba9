"""A forecaster that also foretells the negated series, and averages both."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place, emit_layer
from xlstm_export.lowering.variates import END, part
from xlstm_export.model.layers.mirrored import Mirrored
from xlstm_export.model.variates import CONTEXT, GROUPS


def emit(g: Emitter, context: ir.Value, layer: Mirrored, place: Place) -> ir.Value:
    """context float32 [B,targets,time] to float32 [B,targets,horizon,Q]; inner has 2B entries."""
    with g.within(place.scope):
        both = {name: _both(g, x, name) for name, x in place.inputs.items()}
    y, inside = both[CONTEXT], replace(place, inputs=both)
    for path, part_layer in layer.parts(place.path):
        y = emit_layer(g, y, part_layer, inside.at(path))
    with g.within(place.scope):
        batch = g.op("Shape", context, start=0, end=1, role="batch")
        own, other = part(g, y, 0, batch, 0), part(g, y, batch, END, 0)
        other = g.op("Gather", other, g.ints(*layer.opposite), axis=-1, role="opposite")
        twice = g.op("Sub", own, other)
        return g.is_float32(g.op("Mul", twice, g.constant(0.5, "float32")))


def _both(g: Emitter, x: ir.Value, name: str) -> ir.Value:
    """x [B,...] and its negative, whose groups are the same: [2B,...]."""
    return g.op("Concat", x, x if name == GROUPS else g.op("Neg", x), axis=0, role=name)
