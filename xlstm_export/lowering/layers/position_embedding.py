"""A vector for every position: an Add."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.position_embedding import PositionEmbedding


def emit(g: Emitter, x: ir.Value, layer: PositionEmbedding, place: Place) -> ir.Value:
    """x [B,T,D] to [B,T,D]."""
    table = g.weight(f"{place.path}.weight", place.weights["weight"])
    return g.op("Add", x, table, role=place.path)
