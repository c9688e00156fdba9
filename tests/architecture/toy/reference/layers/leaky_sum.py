"""The sum in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.architecture.toy.model.layers.leaky_sum import LeakySum
from xlstm_export.reference.place import Place


def evaluate(x: Tensor, layer: LeakySum, place: Place) -> Tensor:
    """x [B,T,D] to [B,T,D]."""
    scaled = (x.to(place.x_type) * place["scale"]).to(place.s_type)
    (y,) = place.take("leaky", "y")
    steps = []
    for t in range(x.shape[1]):
        y = place["decay"] * y + scaled[:, t]
        steps.append(y)
    place.give("leaky", "y", [y])
    return torch.stack(steps, dim=1).to(place.x_type)
