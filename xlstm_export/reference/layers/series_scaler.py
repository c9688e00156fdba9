"""The window of a series and its scale."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from xlstm_export.model.layers.series_scaler import FLOOR, LETTERS, SeriesScaler
from xlstm_export.reference.place import Place


def evaluate(x: Tensor, layer: SeriesScaler, place: Place) -> Tensor:
    """x [B,L] to scaled observations [B,context_length], or [B,L] where the call continues."""
    x = x.to(place.s_type)
    if place.begins:
        missing = max(0, layer.context_length - x.shape[1])
        x = F.pad(x, (missing, 0), value=torch.nan)[:, -layer.context_length :]
        rough = x.nanmean(dim=1, keepdim=True).nan_to_num(0.0)
        loc = rough + (x - rough).nanmean(dim=1, keepdim=True).nan_to_num(0.0)
        spread = (x - loc).square().nanmean(dim=1, keepdim=True).sqrt().nan_to_num(1.0)
        scale = torch.where(spread == 0, loc.abs() + FLOOR, spread)
    else:
        loc, scale = place.take("scaler", LETTERS)
    place.give("scaler", LETTERS, [loc, scale])
    return (x - loc) / scale
