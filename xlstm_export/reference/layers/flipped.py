"""A layer that reads a sequence from its end."""

from __future__ import annotations

from torch import Tensor

from xlstm_export.model.layers.flipped import Flipped
from xlstm_export.reference.place import Place, evaluate_layer


def evaluate(x: Tensor, layer: Flipped, place: Place) -> Tensor:
    """flip(inner(flip(x))) of x [B,T,D]."""
    ((path, inner),) = layer.parts(place.path)
    return evaluate_layer(x.flip(1), inner, place.at(path)).flip(1)
