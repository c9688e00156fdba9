"""The width of a forecast, step by step."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.lowering.variates import part
from xlstm_export.model.layers.calibrated_bands import Band, CalibratedBands

_TIME = 2


def emit(g: Emitter, x: ir.Value, layer: CalibratedBands, place: Place) -> ir.Value:
    """x float32 [B,V,H,Q] to [B,V,H,Q]."""
    with g.within(place.scope):
        median = part(g, x, layer.median, layer.median + 1, -1)
        offset = g.op("Sub", x, median)
        values = g.op("Add", median, g.op("Mul", _factor(g, x, layer, layer.band), offset))
        if not layer.trend:
            return g.is_float32(values)
        given = place.given(layer.trend, "trend", "dv")
        has_trend, last = (g.op("Unsqueeze", value, g.ints(3)) for value in given)
        side = g.op("Sign", g.op("ReduceSum", offset, g.ints(_TIME), keepdims=1))
        spread = g.op("Sqrt", _running_sum(g, g.op("Mul", offset, offset)))
        spread = g.op("Mul", _factor(g, x, layer, layer.step_band), g.op("Mul", side, spread))
        path = g.op("Add", _running_sum(g, median), last)
        return g.is_float32(g.op("Where", has_trend, g.op("Add", path, spread), values))


def _running_sum(g: Emitter, x: ir.Value) -> ir.Value:
    return g.op("CumSum", x, g.constant(_TIME, "int64"))


def _factor(g: Emitter, x: ir.Value, layer: CalibratedBands, band: Band) -> ir.Value:
    """The factors of ``band`` at the steps of x: [H,1]."""
    steps = np.arange(1, layer.longest + 1, dtype=np.float64)[:, None]
    factors = (band.spread * steps**band.growth).astype(np.float32)
    name = "band" if band == layer.band else "step_band"
    horizon = g.op("Shape", x, start=_TIME, end=_TIME + 1, role="horizon")
    return part(g, g.array(f"{g.scope}/{name}", factors), 0, horizon, 0)
