"""Layers that work across the series of a batch entry."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_export.model.layers.over_variates import OverVariates
from xlstm_export.model.variates import GROUPS
from xlstm_export.reference.place import Place, evaluate_layer
from xlstm_export.reference.variates import variates_of


def evaluate(x: Tensor, layer: OverVariates, place: Place) -> Tensor:
    """x [R,T,D] to [R,T,D], by way of [B,T,V,D]."""
    entries = x.reshape(variates_of(place, GROUPS), -1, *x.shape[1:]).permute(1, 2, 0, 3)
    mixed = entries
    for path, part in layer.parts(place.path):
        mixed = evaluate_layer(mixed, part, place.at(path))
    (has_others,) = place.given(layer.variates, "variates", "a")
    entries = torch.where(has_others, mixed, entries)
    return entries.permute(2, 0, 1, 3).flatten(0, 1)
