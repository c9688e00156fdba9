"""Series with a trend, as steps from one value to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_export.model.layers.differenced_trends import FEWEST, LEAST_DEVIATION, DifferencedTrends
from xlstm_export.reference.place import Place
from xlstm_export.reference.series import Series


def evaluate(x: Tensor, layer: DifferencedTrends, place: Place) -> Tensor:
    """x [B,V,T] to [B,V,T], in the state type."""
    values = Series(x)
    number = torch.arange(x.shape[2]).expand(x.shape)
    has_trend = _has_trend(values, number.to(x.dtype) / x.shape[2], layer)
    there = torch.where(x.isnan(), -1, number)
    is_last = there == there.amax(-1, keepdim=True)
    place.give("trend", "dv", [has_trend, values.total(torch.where(is_last, x, 0.0))])
    steps = torch.cat([torch.zeros_like(x[..., :1]), x.diff(dim=-1)], dim=-1)
    return torch.where(has_trend, steps, x)


def _has_trend(values: Series, time: Tensor, layer: DifferencedTrends) -> Tensor:
    """Whether a line through (time, value) explains the series: bool [B,V,1].

    It rises by S_xu / S_uu, and takes S_xu^2 / (S_xx S_uu) of the variance.
    """
    _, x, unit = values.centred()
    time = time - values.mean(time)
    xx, xu, uu = values.total(x * x), values.total(x * time), values.total(time * time)
    deviation = (xx / (values.count - 1).clamp_min(1)).sqrt()
    is_fit = (values.count >= FEWEST) & (deviation * unit > LEAST_DEVIATION)
    rises = xu.abs() >= layer.least_rise * deviation * uu
    return is_fit & rises & (xu.square() >= layer.least_r2 * xx * uu)
