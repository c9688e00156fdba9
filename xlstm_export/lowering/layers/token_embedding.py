"""Token embedding: rows of a table."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.low_bit import rows
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.token_embedding import TokenEmbedding


def emit(g: Emitter, ids: ir.Value, layer: TokenEmbedding, place: Place) -> ir.Value:
    """ids [B,T] to [B,T,D]."""
    is_matrix = place.path in place.tied
    return rows(g, ids, place.path, place.weights["weight"], place.path, is_matrix=is_matrix)
