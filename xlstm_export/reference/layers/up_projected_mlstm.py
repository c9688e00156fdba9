"""The mLSTM of the block stack (xLSTM paper, Beck et al. 2024, fig. 11)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from xlstm_export.model.layers.up_projected_mlstm import UpProjectedMLSTM
from xlstm_export.reference.cells import causal_conv, grid_conv, mlstm_cell
from xlstm_export.reference.place import Place


def evaluate(normed: Tensor, layer: UpProjectedMLSTM, place: Place) -> Tensor:
    """normed [B,T,D], in the state type, to [B,T,D]."""
    x = normed.to(place.x_type)
    inner, z = place.linear(x, "up"), place.linear(x, "z")
    conv = _convolved(inner, layer, place)
    q, k = place.block_diagonal(conv, "q"), place.block_diagonal(conv, "k")
    v = place.block_diagonal(inner, "v")
    qkv = torch.cat([q, k, v], dim=-1).to(place.s_type)
    gates = (place.linear(qkv, "input_gate"), place.linear(qkv, "forget_gate"))
    h = mlstm_cell(q, k, v, gates, layer.cell, place)
    h = place.head_norm(h, layer.head_norm_eps)
    return place.linear((h + place["skip.weight"] * conv) * F.silu(z), "out")


def _convolved(inner: Tensor, layer: UpProjectedMLSTM, place: Place) -> Tensor:
    """silu(conv(inner)) [B,T,E]."""
    if layer.grid is not None:
        return F.silu(grid_conv(inner, layer.grid, place))
    return causal_conv(inner, place) if layer.conv_width > 0 else F.silu(inner)
