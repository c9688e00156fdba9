"""Quantiles of a forecast, in the scale of the series."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.last_step import last_step
from xlstm_export.lowering.place import Place, emit_layer
from xlstm_export.model.layers.quantile_head import QuantileHead
from xlstm_export.model.layers.series_scaler import LETTERS


def emit(g: Emitter, x: ir.Value, layer: QuantileHead, place: Place) -> ir.Value:
    """x [B,T,D] to float32 quantiles [B,steps,Q]: y scale + loc."""
    if place.begins:
        with g.within(place.scope):
            x = last_step(g, x, None)
    y = emit_layer(g, x, layer.inner, place)
    with g.within(place.scope):
        y = g.cast(y, "float32")
        by_level = g.reshape(y, 0, 0, len(layer.levels), layer.patch_size)
        by_step = g.op("Transpose", by_level, perm=[0, 1, 3, 2])
        y = g.reshape(by_step, 0, -1, len(layer.levels))
        loc, scale = (
            g.reshape(value, 0, 1, 1) for value in place.given(layer.scaler, "scaler", LETTERS)
        )
        return g.is_float32(g.op("Add", g.op("Mul", y, scale), loc))
