"""A recurrence that also runs backwards over what is known ahead."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_export.model.layers.both_ways import BothWays
from xlstm_export.model.variates import FUTURE
from xlstm_export.reference.place import Place, evaluate_layer
from xlstm_export.reference.variates import rows_of


def evaluate(x: Tensor, layer: BothWays, place: Place) -> Tensor:
    """x [R,T,D] to [R,T,D]; the rows known ahead are the last."""
    (cell, inner), (combination, matrix) = layer.parts(place.path)
    y = evaluate_layer(x, inner, place.at(cell))
    others = len(x) - rows_of(place, FUTURE)
    if others == len(x):
        return y
    back = evaluate_layer(x[others:].flip(1), inner, place.at(cell)).flip(1)
    pair = torch.cat([y[others:], back], dim=-1)
    combined = evaluate_layer(pair, matrix, place.at(combination))
    (has_value,) = place.given(layer.variates, "variates", "k")
    return torch.cat([y[:others], torch.where(has_value, combined, y[others:])])
