"""A network of one hidden layer."""

from __future__ import annotations

from torch import Tensor

from xlstm_export.model.layers.mlp import MLP
from xlstm_export.reference.layers.feed_forward import ACTIVATIONS
from xlstm_export.reference.place import Place


def evaluate(x: Tensor, layer: MLP, place: Place) -> Tensor:
    """out(act(hidden(x))) of x [...,D]."""
    hidden = place.linear(x.to(place.x_type), "hidden")
    return place.linear(ACTIVATIONS[layer.activation](hidden), "out")
