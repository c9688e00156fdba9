"""Attention between series."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xlstm_export.model.layers.variate_attention import VariateAttention
from xlstm_export.reference.place import Place, by_head


def evaluate(normed: Tensor, layer: VariateAttention, place: Place) -> Tensor:
    """normed [B,T,V,D], in the state type, to [B,T,V,D]."""
    x = normed.to(place.x_type)
    q, k, v = (by_head(place.linear(x, name), layer.heads).transpose(2, 3) for name in "qkv")
    if layer.normed:
        q, k = _normed(q, layer.eps, place), _normed(k, layer.eps, place)
    scale = math.sqrt(layer.model_size // layer.heads)
    scores = (q @ k.transpose(3, 4)).to(place.s_type) / scale
    (sees,) = place.given(layer.variates, "variates", "s")
    weights = torch.softmax(scores.masked_fill(~sees, -math.inf), dim=-1)
    h = (weights.to(place.x_type) @ v).transpose(2, 3).flatten(3)
    return place.linear(h, "out")


def _normed(x: Tensor, eps: float, place: Place) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis."""
    x = x.to(place.s_type)
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)).to(place.x_type)
