"""A series cut into patches."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_export.model.layers.patches import Patches
from xlstm_export.reference.place import Place


def evaluate(x: Tensor, layer: Patches, place: Place) -> Tensor:
    """x [B,L] to tokens [B,L/size,2*size]: values, then mask."""
    by_patch = x.reshape(len(x), -1, layer.size)
    return torch.cat([by_patch.nan_to_num(0.0), (~by_patch.isnan()).to(x.dtype)], dim=-1)
