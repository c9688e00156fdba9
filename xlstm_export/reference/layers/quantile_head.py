"""Quantiles of a forecast, in the scale of the series."""

from __future__ import annotations

from torch import Tensor

from xlstm_export.model.layers.quantile_head import QuantileHead
from xlstm_export.model.layers.series_scaler import LETTERS
from xlstm_export.reference.place import Place, evaluate_layer


def evaluate(x: Tensor, layer: QuantileHead, place: Place) -> Tensor:
    """x [B,T,D] to quantiles [B,steps,Q]: y scale + loc."""
    if place.begins:
        x = x[:, -1:]
    y = evaluate_layer(x, layer.inner, place).to(place.s_type)
    by_level = y.reshape(*y.shape[:2], len(layer.levels), layer.patch_size)
    by_step = by_level.transpose(-1, -2).flatten(1, 2)
    loc, scale = place.given(layer.scaler, "scaler", LETTERS)
    return by_step * scale[..., None] + loc[..., None]
