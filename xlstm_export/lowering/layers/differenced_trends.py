"""Series with a trend, as steps from one value to the next."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.lowering.series import Series, series
from xlstm_export.lowering.variates import END, part
from xlstm_export.model.layers.differenced_trends import FEWEST, LEAST_DEVIATION, DifferencedTrends


def emit(g: Emitter, x: ir.Value, layer: DifferencedTrends, place: Place) -> ir.Value:
    """x float32 [B,V,T] to [B,V,T]."""
    with g.within(place.scope):
        values, zero, one = series(g, x), g.constant(0, "int64"), g.constant(1, "int64")
        length = g.op("Shape", x, start=2, end=3, role="length")
        number = g.op("Range", zero, g.op("Squeeze", length), one, role="time")
        has_trend = _has_trend(g, values, _float(g, number), _float(g, length), layer)
        place.give("trend", "dv", [has_trend, _last(g, values, number)])
        first = part(g, x, 0, 1, 2)
        steps = g.op("Sub", part(g, x, 1, END, 2), part(g, x, 0, -1, 2))
        none = g.op("Expand", g.constant(0.0, "float32"), g.op("Shape", first))
        steps = g.op("Concat", none, steps, axis=2)
        return g.is_float32(g.op("Where", has_trend, steps, x, role="steps_or_values"))


def _float(g: Emitter, x: ir.Value) -> ir.Value:
    return g.op("Cast", x, to=int(ir.DataType.FLOAT))


def _has_trend(
    g: Emitter, values: Series, number: ir.Value, length: ir.Value, layer: DifferencedTrends
) -> ir.Value:
    """Whether a line through (time, value) explains the series: bool [B,V,1].

    With time u from 0 to 1 and sums over what is there, the line rises by S_xu / S_uu, and takes
    S_xu^2 / (S_xx S_uu) of the variance.
    """
    one = g.constant(1.0, "float32")
    _, x, unit = values.centred()
    time = values.there(g.op("Div", number, length))
    time = values.there(g.op("Sub", time, values.mean(time)))
    xx, xu, uu = (values.total(g.op("Mul", a, b)) for a, b in ((x, x), (x, time), (time, time)))
    freedom = g.op("Max", g.op("Sub", values.count, one), one)
    deviation = g.op("Sqrt", g.op("Div", xx, freedom))
    varies = g.op("Greater", g.op("Mul", deviation, unit), g.constant(LEAST_DEVIATION, "float32"))
    is_many = g.op("Greater", values.count, g.constant(FEWEST - 0.5, "float32"))
    # products in place of quotients: nothing is divided by a spread of zero
    least = g.op("Mul", g.op("Mul", deviation, uu), g.constant(layer.least_rise, "float32"))
    rises = g.op("GreaterOrEqual", g.op("Abs", xu), least)
    variance = g.op("Mul", g.op("Mul", xx, uu), g.constant(layer.least_r2, "float32"))
    explains = g.op("GreaterOrEqual", g.op("Mul", xu, xu), variance)
    return g.op("And", g.op("And", varies, is_many), g.op("And", rises, explains))


def _last(g: Emitter, values: Series, number: ir.Value) -> ir.Value:
    """The last value that is there [B,V,1], 0 where none is."""
    there = g.op("Where", values.missing, g.constant(-1, "int64"), number)
    last = g.op("ReduceMax", there, g.ints(-1), keepdims=1)
    is_last = g.op("Equal", there, last)
    zero = g.constant(0.0, "float32")
    return values.total(g.op("Where", is_last, values.there(values.x), zero))
