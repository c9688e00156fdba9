"""Layer norm and RMS norm."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_export.model.layers.norm import Norm
from xlstm_export.reference.place import Place


def evaluate(x: Tensor, layer: Norm, place: Place) -> Tensor:
    """Norm of x [B,T,D] over D, in the state type."""
    x = x.to(place.s_type)
    if layer.kind == "layer":
        x = x - x.mean(-1, keepdim=True)
    return place.affine(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + layer.eps))
