"""Vectors of patches to quantiles in the scale of the series."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.lowering.variates import part, rows_of, variates_of
from xlstm_export.model.layers.variate_quantiles import VariateQuantiles
from xlstm_export.model.variates import CONTEXT, FUTURE


def emit(g: Emitter, x: ir.Value, layer: VariateQuantiles, place: Place) -> ir.Value:
    """x [targets, N, count*P] to float32 [B, targets, horizon, count]."""
    with g.within(place.scope):
        y = g.reshape(g.cast(x, "float32"), 0, 0, layer.count, layer.patch_size)
        y = g.reshape(g.op("Transpose", y, perm=[0, 1, 3, 2]), 0, -1, layer.count)
        times = (g.op("Shape", place.input(name), start=2, end=3) for name in (FUTURE, CONTEXT))
        horizon = g.op("Sub", *times, role="horizon")
        y = _unscaled(g, part(g, y, 0, horizon, 1), layer, place)
        targets = variates_of(g, place, CONTEXT)
        by_target = g.op("Concat", targets, g.ints(-1), g.op("Shape", y, start=1), axis=0)
        return g.is_float32(g.op("Transpose", g.op("Reshape", y, by_target), perm=[1, 0, 2, 3]))


def _unscaled(g: Emitter, y: ir.Value, layer: VariateQuantiles, place: Place) -> ir.Value:
    """y [rows,time,count] times scale plus loc, after sinh where the scaler squashed."""
    rows = rows_of(g, place, CONTEXT)
    letters = "lsb" if layer.spares_binary else "ls"
    given = (part(g, v, 0, rows, 0) for v in place.given(layer.scaler, "scaler", letters))
    loc, scale, *binary = (g.op("Unsqueeze", value, g.ints(2)) for value in given)
    if layer.squashed:
        limit = (g.constant(sign * layer.limit, "float32") for sign in (-1, 1))
        wide = g.op("Sinh", g.op("Clip", y, *limit))
        y = g.op("Where", *binary, y, wide) if binary else wide
    return g.op("Add", g.op("Mul", y, scale), loc)
