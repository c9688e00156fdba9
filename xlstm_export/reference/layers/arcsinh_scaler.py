"""Standardisation of series with missing values."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_export.model.layers.arcsinh_scaler import ArcsinhScaler
from xlstm_export.reference.place import Place
from xlstm_export.reference.series import Series


def evaluate(x: Tensor, layer: ArcsinhScaler, place: Place) -> Tensor:
    """x [R,L] to arcsinh((x - loc) / scale), in the state type."""
    loc, scale = _loc_and_scale(x, layer.eps)
    if not layer.spares_binary:
        place.give("scaler", "ls", [loc, scale])
        scaled = (x - loc) / scale
        return torch.asinh(scaled) if layer.squashes else scaled
    binary = ((x == 0) | (x == 1) | x.isnan()).all(dim=1, keepdim=True)
    loc, scale = torch.where(binary, 0.0, loc), torch.where(binary, 1.0, scale)
    place.give("scaler", "lsb", [loc, scale, binary])
    scaled = (x - loc) / scale
    return torch.where(binary, scaled, torch.asinh(scaled)) if layer.squashes else scaled


def _loc_and_scale(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and deviation [R,1] of the numbers in x [R,L]: 0 and 1 where there is none."""
    values = Series(x)
    loc, ratio, unit = values.centred()
    deviation = unit * values.mean(ratio.square()).sqrt()
    return loc, torch.where(values.count > 0, deviation.clamp_min(eps), 1.0)
