"""The window of a series and its scale, in float32 throughout."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.series_scaler import FLOOR, LETTERS, SeriesScaler

_LARGEST = float(np.finfo(np.float32).max)


def emit(g: Emitter, x: ir.Value, layer: SeriesScaler, place: Place) -> ir.Value:
    """x [B,L] to scaled observations [B,context_length], or [B,L] where the call continues."""
    with g.within(place.scope):
        if place.begins:
            x = _window(g, x, layer.context_length)
            loc, scale = _measure(g, x)
        else:
            loc, scale = place.take(g, "scaler", LETTERS)
        place.give("scaler", LETTERS, [loc, scale])
        return g.is_float32(g.op("Div", g.op("Sub", x, loc), scale))


def _window(g: Emitter, x: ir.Value, length: int) -> ir.Value:
    """The last ``length`` columns of x [B,L], NaN in front where there are fewer."""
    shape = g.op("Concat", g.op("Shape", x, start=0, end=1), g.ints(length), axis=0)
    padding = g.op("Expand", g.constant([[np.nan]], "float32"), shape)
    padded = g.op("Concat", padding, x, axis=1)
    last = np.iinfo(np.int64).max
    return g.op("Slice", padded, g.ints(-length), g.ints(last), g.ints(1), role="window")


def _measure(g: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """loc and scale [B,1]."""
    missing = g.op("IsNaN", x)
    rough = _finite(g, _mean(g, x, missing), 0.0)
    rest = _mean(g, g.op("Sub", x, rough), missing)  # a constant has to be its own mean
    loc = g.op("Add", rough, _finite(g, rest, 0.0))
    squared = g.op("Pow", g.op("Sub", x, loc), g.constant(2.0, "float32"))
    spread = _finite(g, g.op("Sqrt", _mean(g, squared, missing)), 1.0)
    is_flat = g.op("Equal", spread, g.constant(0.0, "float32"))
    floor = g.op("Add", g.op("Abs", loc), g.constant(FLOOR, "float32"))
    return loc, g.op("Where", is_flat, floor, spread)


def _mean(g: Emitter, x: ir.Value, missing: ir.Value) -> ir.Value:
    """Mean [B,1] of what is not missing; 0/0, which is NaN, where nothing is there."""
    there = g.op("Cast", g.op("Not", missing), to=int(ir.DataType.FLOAT))
    count = g.op("ReduceSum", there, g.ints(1), keepdims=1)
    filled = g.op("Where", missing, g.constant(0.0, "float32"), x)
    return g.op("Div", g.op("ReduceSum", filled, g.ints(1), keepdims=1), count)


def _finite(g: Emitter, x: ir.Value, instead: float) -> ir.Value:
    """x, ``instead`` of NaN, and the largest numbers there are instead of infinity."""
    limits = g.constant(-_LARGEST, "float32"), g.constant(_LARGEST, "float32")
    known = g.op("Where", g.op("IsNaN", x), g.constant(instead, "float32"), x)
    return g.op("Clip", known, *limits)
