"""Gated feed-forward network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.reference.place import Place

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "relu^2": lambda x: F.relu(x).square(),
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "swish": F.silu,
}


def evaluate(x: Tensor, layer: FeedForward, place: Place) -> Tensor:
    """down(act(gate(x)) * up(x)) of x [B,T,D]."""
    x = x.to(place.x_type)
    gate = ACTIVATIONS[layer.activation](place.linear(x, "gate"))
    return place.linear(gate * place.linear(x, "up"), "down")
