"""Token embedding."""

from __future__ import annotations

from torch import Tensor

from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.reference.place import Place


def evaluate(ids: Tensor, layer: TokenEmbedding, place: Place) -> Tensor:
    """ids [B,T] to [B,T,D]."""
    return place["weight"][ids].to(place.x_type)
