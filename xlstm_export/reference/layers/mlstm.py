"""The mLSTM of xLSTM-7B (Beck et al. 2025), fig. 2."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_export.model.layers.mlstm import MLSTM
from xlstm_export.reference.cells import mlstm_cell
from xlstm_export.reference.place import Place


def evaluate(normed: Tensor, layer: MLSTM, place: Place) -> Tensor:
    """normed [B,T,D], in the state type, to [B,T,D]."""
    x = normed.to(place.x_type)
    q, k, v = (place.linear(x, name) for name in "qkv")
    gates = (place.linear(normed, "input_gate"), place.linear(normed, "forget_gate"))
    h = mlstm_cell(q, k, v, gates, layer.cell, place)
    output_gate = torch.sigmoid(place.linear(x, "output_gate"))
    return place.linear(output_gate * place.head_norm(h, layer.head_norm_eps), "out")
