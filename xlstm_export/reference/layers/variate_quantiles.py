"""Vectors of patches to quantiles in the scale of the series."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_export.model.layers.variate_quantiles import VariateQuantiles
from xlstm_export.model.variates import CONTEXT, FUTURE
from xlstm_export.reference.place import Place
from xlstm_export.reference.variates import rows_of, variates_of


def evaluate(x: Tensor, layer: VariateQuantiles, place: Place) -> Tensor:
    """x [targets, N, count*P] to [B, targets, horizon, count], in the state type."""
    y = x.to(place.s_type).reshape(*x.shape[:2], layer.count, layer.patch_size)
    y = y.transpose(2, 3).flatten(1, 2)
    horizon = place.input(FUTURE).shape[2] - place.input(CONTEXT).shape[2]
    y = _unscaled(y[:, :horizon], layer, place)
    return y.reshape(variates_of(place, CONTEXT), -1, *y.shape[1:]).transpose(0, 1)


def _unscaled(y: Tensor, layer: VariateQuantiles, place: Place) -> Tensor:
    """y [rows,time,count] times scale plus loc, after sinh where the scaler squashed."""
    rows = rows_of(place, CONTEXT)
    letters = "lsb" if layer.spares_binary else "ls"
    given = place.given(layer.scaler, "scaler", letters)
    loc, scale, *binary = (value[:rows, :, None] for value in given)
    if layer.squashed:
        wide = torch.sinh(y.clamp(-layer.limit, layer.limit))
        y = torch.where(binary[0], y, wide) if binary else wide
    return y * scale + loc
