"""Standardisation of series with missing values."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.lowering.series import series
from xlstm_export.model.layers.arcsinh_scaler import ArcsinhScaler


def emit(g: Emitter, x: ir.Value, layer: ArcsinhScaler, place: Place) -> ir.Value:
    """x float32 [R,L] to arcsinh((x - loc) / scale), float32."""
    with g.within(place.scope):
        loc, scale = _loc_and_scale(g, x, layer.eps)
        if not layer.spares_binary:
            place.give("scaler", "ls", [loc, scale])
            scaled = g.op("Div", g.op("Sub", x, loc), scale)
            return g.is_float32(g.op("Asinh", scaled) if layer.squashes else scaled)
        zero, one = g.constant(0.0, "float32"), g.constant(1.0, "float32")
        binary = _is_binary(g, x)
        loc, scale = g.op("Where", binary, zero, loc), g.op("Where", binary, one, scale)
        place.give("scaler", "lsb", [loc, scale, binary])
        scaled = g.op("Div", g.op("Sub", x, loc), scale)
        if layer.squashes:
            scaled = g.op("Where", binary, scaled, g.op("Asinh", scaled))
        return g.is_float32(scaled)


def _loc_and_scale(g: Emitter, x: ir.Value, eps: float) -> tuple[ir.Value, ir.Value]:
    """Mean and deviation [R,1] of the numbers in x [R,L]: 0 and 1 where there is none."""
    values = series(g, x)
    loc, ratio, unit = values.centred()
    deviation = g.op("Mul", unit, g.op("Sqrt", values.mean(g.op("Mul", ratio, ratio))))
    scale = g.op("Max", deviation, g.constant(eps, "float32"), role="floor")
    is_there = g.op("Greater", values.count, g.constant(0.0, "float32"))
    return loc, g.op("Where", is_there, scale, g.constant(1.0, "float32"))


def _is_binary(g: Emitter, x: ir.Value) -> ir.Value:
    """Whether a row of x [R,L] is of zeros, ones and NaN: bool [R,1]."""
    zero, one = g.constant(0.0, "float32"), g.constant(1.0, "float32")
    bit = g.op("Or", g.op("Equal", x, zero), g.op("Equal", x, one))
    other = g.op("Not", g.op("Or", bit, g.op("IsNaN", x)))
    others = g.op("ReduceSum", g.op("Cast", other, to=int(ir.DataType.FLOAT)), g.ints(1))
    return g.op("Equal", others, zero)
