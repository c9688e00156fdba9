"""A recurrence that also runs backwards over what is known ahead.

The rows that are read backwards stand below the others, so that one operator runs both ways, and
runs where nothing is known ahead.
"""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place, emit_layer
from xlstm_export.lowering.variates import END, flip, part, rows_of
from xlstm_export.model.layers.both_ways import BothWays
from xlstm_export.model.variates import FUTURE


def emit(g: Emitter, x: ir.Value, layer: BothWays, place: Place) -> ir.Value:
    """x [R,T,D] to [R,T,D]; the rows known ahead are the last."""
    (cell, inner), (combination, matrix) = layer.parts(place.path)
    with g.within(place.scope):
        rows = g.op("Shape", x, start=0, end=1, role="rows")
        first_known = g.op("Sub", rows, rows_of(g, place, FUTURE))
        both = g.op("Concat", x, flip(g, part(g, x, first_known, END, 0)), axis=0)
        both = g.is_float32(both) if x in g.float32_values else both
    y = emit_layer(g, both, inner, place.at(cell))
    with g.within(place.scope):
        known = part(g, y, first_known, rows, 0)
        pair = g.op("Concat", known, flip(g, part(g, y, rows, END, 0)), axis=-1)
    combined = emit_layer(g, pair, matrix, place.at(combination))
    with g.within(place.scope):
        chosen = g.op("Where", *place.given(layer.variates, "variates", "k"), combined, known)
        return g.op("Concat", part(g, y, 0, first_known, 0), chosen, axis=0)
