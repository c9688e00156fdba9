"""The width of a forecast, step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_export.model.layers.calibrated_bands import Band, CalibratedBands
from xlstm_export.reference.place import Place


def evaluate(x: Tensor, layer: CalibratedBands, place: Place) -> Tensor:
    """x [B,V,H,Q] to [B,V,H,Q], in the state type."""
    median = x[..., layer.median : layer.median + 1]
    offset = x - median
    values = median + _factor(x, layer.band) * offset
    if not layer.trend:
        return values
    has_trend, last = (value[..., None] for value in place.given(layer.trend, "trend", "dv"))
    side = offset.sum(2, keepdim=True).sign()
    spread = _factor(x, layer.step_band) * side * offset.square().cumsum(2).sqrt()
    return torch.where(has_trend, last + median.cumsum(2) + spread, values)


def _factor(x: Tensor, band: Band) -> Tensor:
    """The factors of ``band`` at the steps of x: [H,1]."""
    steps = torch.arange(1, x.shape[2] + 1, dtype=x.dtype)[:, None]
    return band.spread * steps**band.growth
