"""Logits of a language model."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.reference.place import Place


def evaluate(x: Tensor, layer: LogitHead, place: Place) -> Tensor:
    """x [B,T,D] to logits [B,T,vocab] in the state type."""
    table = f"{layer.tied_to or place.path}.weight"
    logits = place.product(x.to(place.x_type), table, place.get("bias")).to(place.s_type)
    cap = layer.soft_cap
    return cap * torch.tanh(logits / cap) if cap > 0 else logits
