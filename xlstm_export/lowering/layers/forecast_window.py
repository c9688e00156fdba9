"""The steps and rows of a model of several series that are its forecast."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.lowering.variates import part, rows_of
from xlstm_export.model.layers.forecast_window import ForecastWindow
from xlstm_export.model.variates import CONTEXT


def emit(g: Emitter, x: ir.Value, layer: ForecastWindow, place: Place) -> ir.Value:
    """x [R,T,D] to [targets,N,D]."""
    with g.within(place.scope):
        is_float32 = x in g.float32_values
        x = part(g, part(g, x, -1 - layer.patches, -1, 1), 0, rows_of(g, place, CONTEXT), 0)
        return g.is_float32(x) if is_float32 else x
