"""Targets and covariates as rows of one length."""

from __future__ import annotations

import math

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.lowering.variates import END, part, rows_of, variates_of
from xlstm_export.model.layers.joined_variates import JoinedVariates
from xlstm_export.model.variates import CONTEXT, FUTURE, GROUPS, PAST


def emit(g: Emitter, context: ir.Value, layer: JoinedVariates, place: Place) -> ir.Value:
    """context float32 [B,targets,time] to rows float32 [R,L]."""
    with g.within(place.scope):
        rows = _rows(g, context, layer, place)
        first_known = g.op("Sub", g.op("Shape", rows, start=0, end=1), rows_of(g, place, FUTURE))
        known = part(g, rows, first_known, END, 0)
        ahead = part(g, known, -layer.future_size, END, 1)
        place.give("variates", "k", [_has_value(g, ahead)])
        place.give("variates", "as", _sight(g, place))
    return g.is_float32(rows)


def _rows(g: Emitter, context: ir.Value, layer: JoinedVariates, place: Place) -> ir.Value:
    past, known = place.input(PAST), place.input(FUTURE)
    time = g.op("Shape", context, start=2, end=3, role="length")
    seen = g.op("Concat", context, past, part(g, known, 0, time, 2), axis=1)
    seen = part(g, seen, -layer.context_size, END, 2)
    size = layer.context_size + layer.left_pad
    seen = part(g, g.op("Concat", _blank(g, seen, size), seen, axis=2), -size, END, 2)
    ahead = part(g, known, time, END, 2)
    padded = g.op("Concat", ahead, _blank(g, known, layer.future_size), axis=2)
    ahead = part(g, padded, 0, layer.future_size, 2)
    unknown = g.op("Concat", *(_blank(g, x, layer.future_size) for x in (context, past)), axis=1)
    joined = g.op("Concat", seen, g.op("Concat", unknown, ahead, axis=1), axis=2)
    by_variate = g.op("Transpose", joined, perm=[1, 0, 2])
    return g.reshape(by_variate, -1, size + layer.future_size)


def _blank(g: Emitter, x: ir.Value, steps: int) -> ir.Value:
    """NaN [B,V,steps] for x [B,V,...]."""
    shape = g.op("Concat", g.op("Shape", x, start=0, end=2), g.ints(steps), axis=0)
    return g.op("Expand", g.constant(math.nan, "float32"), shape, role="blank")


def _has_value(g: Emitter, x: ir.Value) -> ir.Value:
    """Whether a row of x [K,L] has a number: [K,1,1]."""
    there = g.op("Cast", g.op("Not", g.op("IsNaN", x)), to=int(ir.DataType.FLOAT))
    some = g.op("ReduceSum", there, g.ints(1), keepdims=1)
    return g.op("Unsqueeze", g.op("Greater", some, g.constant(0.0, "float32")), g.ints(2))


def _sight(g: Emitter, place: Place) -> list[ir.Value]:
    """Who has others in its group [B,1,V,1], and who sees whom [B,1,1,V,V]."""
    groups = place.input(GROUPS)
    column, row = g.op("Unsqueeze", groups, g.ints(2)), g.op("Unsqueeze", groups, g.ints(1))
    same = g.op("Equal", column, row)
    members = g.op("Cast", same, to=int(ir.DataType.FLOAT))
    members = g.op("ReduceSum", members, g.ints(2), keepdims=1)
    has_others = g.op("Greater", members, g.constant(1.0, "float32"))
    zero, one = g.constant(0, "int64"), g.constant(1, "int64")
    number = g.op("Range", zero, g.op("Squeeze", variates_of(g, place, GROUPS)), one)
    is_target = g.op("Less", number, variates_of(g, place, CONTEXT))
    is_covariate = g.op("Unsqueeze", g.op("Not", is_target), g.ints(0))
    sees_targets = g.op("Unsqueeze", is_target, g.ints(1))
    sees = g.op("And", same, g.op("Or", sees_targets, is_covariate))
    return [
        g.op("Unsqueeze", has_others, g.ints(1)),
        g.op("Unsqueeze", sees, g.ints(1, 2)),
    ]
