"""Token embedding: a Gather."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.token_embedding import TokenEmbedding


def emit(g: Emitter, ids: ir.Value, layer: TokenEmbedding, place: Place) -> ir.Value:
    """ids [B,T] to [B,T,D]."""
    table = g.weight(f"{place.path}.weight", place.weights["weight"])
    return g.op("Gather", table, ids, axis=0, role=place.path)
