"""Depthwise causal convolution over time with a carried window.

y[b,t,d] = act(bias[d] + sum_j w[d,j] x[b, t - (W-1) + j, d]), x before step 0 = the state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

from xlstm_export.ops.reference.lengths import valid_steps


class Conv1dResult(NamedTuple):
    """y [B,T,D] in the dtype of x; state [B,W-1,D] in the state dtype."""

    y: Tensor
    state: Tensor


def causal_conv1d(
    x: Tensor, w: Tensor, b: Tensor, state: Tensor, lengths: Tensor, *, activation: int = 0
) -> Conv1dResult:
    """Shapes as in ``ops.catalog.CAUSAL_CONV1D``; arithmetic in the dtype of ``state``."""
    batch, time, _ = x.shape
    taps = w.shape[1]
    padded = torch.cat([state, x.to(state.dtype)], dim=1)  # [B, W-1+T, D]
    windows = padded.unfold(1, taps, 1)  # [B,T,D,W]
    y = (windows * w.to(state.dtype)).sum(-1) + b
    if activation == 1:
        y = silu(y)
    valid = valid_steps(lengths, batch, time)
    y = torch.where(valid[..., None], y, 0.0)
    last = valid.sum(1)[:, None] + torch.arange(taps - 1)  # rows of padded, [B, W-1]
    return Conv1dResult(y.to(x.dtype), padded[torch.arange(batch)[:, None], last])
