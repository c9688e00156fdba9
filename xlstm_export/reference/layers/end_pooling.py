"""A sequence to one vector."""

from __future__ import annotations

from torch import Tensor

from xlstm_export.model.layers.end_pooling import EndPooling
from xlstm_export.reference.place import Place


def evaluate(x: Tensor, layer: EndPooling, place: Place) -> Tensor:
    """The ends of x [B,T,D], joined, in the state type."""
    ends = x[:, [0, -1]].to(place.s_type)
    return ends.mean(1) if layer.joined == "mean" else ends.flatten(1)
