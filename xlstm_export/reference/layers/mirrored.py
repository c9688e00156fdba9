"""A forecaster that also foretells the negated series, and averages both."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from xlstm_export.model.layers.mirrored import Mirrored
from xlstm_export.model.variates import CONTEXT, GROUPS
from xlstm_export.reference.place import Place, evaluate_layer


def evaluate(context: Tensor, layer: Mirrored, place: Place) -> Tensor:
    """context [B,targets,time] to [B,targets,horizon,Q], in the state type."""
    both = {name: torch.cat([x, x if name == GROUPS else -x]) for name, x in place.inputs.items()}
    y, inside = both[CONTEXT], replace(place, inputs=both)
    for path, part in layer.parts(place.path):
        y = evaluate_layer(y, part, inside.at(path))
    own, other = y.chunk(2)
    return (own - other[..., list(layer.opposite)]) / 2
