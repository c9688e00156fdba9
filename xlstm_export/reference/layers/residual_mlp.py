"""A network of one hidden layer beside a linear map."""

from __future__ import annotations

from torch import Tensor

from xlstm_export.model.layers.residual_mlp import ResidualMLP
from xlstm_export.reference.layers.feed_forward import ACTIVATIONS
from xlstm_export.reference.place import Place


def evaluate(x: Tensor, layer: ResidualMLP, place: Place) -> Tensor:
    """out(act(hidden(x))) + residual(x) of x [B,T,in]."""
    x = x.to(place.x_type)
    hidden = ACTIVATIONS[layer.activation](place.linear(x, "hidden"))
    return place.linear(hidden, "out") + place.linear(x, "residual")
