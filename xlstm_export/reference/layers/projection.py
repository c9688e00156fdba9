"""A matrix."""

from __future__ import annotations

from torch import Tensor

from xlstm_export.model.layers.projection import Projection
from xlstm_export.reference.place import Place


def evaluate(x: Tensor, layer: Projection, place: Place) -> Tensor:
    """x [...,in] to [...,out]."""
    return place.linear(x.to(place.x_type), "out")
