"""Logits of a language model."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.logit_head import LogitHead


def emit(g: Emitter, x: ir.Value, layer: LogitHead, place: Place) -> ir.Value:
    """x [B,T,D] to float32 logits [B,T,vocab], soft-capped to cap*tanh(x/cap) where asked."""
    if x in g.float32_values:
        x = g.cast(x, g.dtype)
    if layer.tied_to:
        table_name = f"{layer.tied_to}.weight"
        table = g.weight(table_name, place.all_weights[table_name])
        matrix = g.op("Transpose", table, perm=[1, 0], role=f"{place.path}.transpose")
    else:
        transposed = place.weights["weight"].with_view(lambda w: w.T)
        matrix = g.weight(f"{place.path}.weight", transposed)
    y = g.op("MatMul", x, matrix, role=place.path)
    if "bias" in place.weights:
        y = g.op("Add", y, g.weight(f"{place.path}.bias", place.weights["bias"]))
    y = g.cast(y, "float32")
    if layer.soft_cap > 0:
        cap = g.constant(layer.soft_cap, "float32")
        y = g.op("Mul", g.op("Tanh", g.op("Div", y, cap)), cap)
    return g.is_float32(y)
