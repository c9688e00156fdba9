"""A layer beside the identity."""

from __future__ import annotations

from torch import Tensor

from xlstm_export.model.layers.residual import Residual
from xlstm_export.reference.place import Place, evaluate_layer


def evaluate(x: Tensor, layer: Residual, place: Place) -> Tensor:
    """x + inner(norm(x))."""
    result = x
    for path, part in layer.parts(place.path):
        result = evaluate_layer(result, part, place.at(path))
    return x + result
