"""Logits of a language model."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.low_bit import matmul
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.logit_head import LogitHead


def emit(g: Emitter, x: ir.Value, layer: LogitHead, place: Place) -> ir.Value:
    """x [B,T,D] to float32 logits [B,T,vocab], soft-capped to cap*tanh(x/cap) where asked."""
    if x in g.float32_values:
        x = g.cast(x, g.dtype)
    source = layer.tied_to or place.path
    matrix = place.all_weights[f"{source}.weight"]
    if layer.tied_to and matrix.blocks is None:
        table = g.weight(f"{source}.weight", matrix)
        transposed = g.op("Transpose", table, perm=[1, 0], role=f"{place.path}.transpose")
        y = g.op("MatMul", x, transposed, role=place.path)
    else:
        y = matmul(g, x, source, matrix, place.path)
    if "bias" in place.weights:
        y = g.op("Add", y, g.weight(f"{place.path}.bias", place.weights["bias"]))
    y = g.cast(y, "float32")
    if layer.soft_cap > 0:
        cap = g.constant(layer.soft_cap, "float32")
        y = g.op("Mul", g.op("Tanh", g.op("Div", y, cap)), cap)
    return g.is_float32(y)
