"""A vector for every position."""

from __future__ import annotations

from torch import Tensor

from xlstm_export.model.layers.position_embedding import PositionEmbedding
from xlstm_export.reference.place import Place


def evaluate(x: Tensor, layer: PositionEmbedding, place: Place) -> Tensor:
    """x + table of x [B,T,D]."""
    return x + place["weight"]
