"""sLSTM: stabilised scalar memory with recurrent mixing inside each head.

    raw = gates_t + y R + b, slots i, f, z, o
    m' = i where n == 0, else max(i, m + logsigmoid(f))
    I = min(1, exp(i - m'));  F = min(1, exp(m + logsigmoid(f) - m'))
    c' = F c + I tanh(z);  n' = F n + I;  y' = sigmoid(o) c' / n'
Source: xLSTM paper (Beck et al. 2024), eq. 8-18; the n == 0 rule is taken per element. With
``state_rounding`` 1 gates_t, the product y R, and the new states are rounded to bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xlstm_export.ops.reference.lengths import valid_steps


class SLSTMResult(NamedTuple):
    """y_all [B,T,N,H] in the dtype of R; y, c, n, m [B,N,H] in the state dtype."""

    y_all: Tensor
    y: Tensor
    c: Tensor
    n: Tensor
    m: Tensor


def slstm(
    gates: Tensor,
    R: Tensor,
    b: Tensor,
    y: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
    lengths: Tensor,
    *,
    n_floor: float = 0.0,
    f_clamp: float = 0.0,
    state_rounding: int = 0,
) -> SLSTMResult:
    """The recurrence, in the dtype of the states. Shapes as in ``ops.catalog.SLSTM``."""
    valid = valid_steps(lengths, gates.shape[0], gates.shape[1])
    recurrent = R.to(y.dtype)
    state: Sequence[Tensor] = (y, c, n, m)
    ys = []
    for t in range(gates.shape[1]):
        given, mixed = gates[:, t], torch.einsum("bnj,njge->bgne", state[0], recurrent)
        if state_rounding == 1:
            given, mixed = to_bfloat16(given), to_bfloat16(mixed)
        raw = given + mixed + b
        new: Sequence[Tensor] = _cell(raw, *state[1:], n_floor=n_floor, f_clamp=f_clamp)
        if state_rounding == 1:
            new = [to_bfloat16(x) for x in new]
        keep = valid[:, t, None, None]
        state = [torch.where(keep, a, s) for a, s in zip(new, state, strict=True)]
        ys.append(torch.where(keep, state[0], 0.0))
    return SLSTMResult(torch.stack(ys, dim=1).to(R.dtype), *state)


def to_bfloat16(x: Tensor) -> Tensor:
    """x rounded to bfloat16, in its own dtype."""
    return x.to(torch.bfloat16).to(x.dtype)


def _cell(
    raw: Tensor, c: Tensor, n: Tensor, m: Tensor, *, n_floor: float, f_clamp: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step from raw [B,4,N,H] and c, n, m [B,N,H] to the new (y, c, n, m)."""
    i, f, z, o = raw.unbind(1)
    if f_clamp > 0:
        f = f.clamp(max=f_clamp)
    log_fm = m + logsigmoid(f)
    m_new = torch.where(n == 0, i, torch.maximum(i, log_fm))
    write = torch.exp(i - m_new).clamp(max=1)
    forget = torch.exp(log_fm - m_new).clamp(max=1)
    c = forget * c + write * torch.tanh(z)
    n = forget * n + write
    if n_floor > 0:
        n = n.clamp(min=n_floor)
    return torch.sigmoid(o) * c / n, c, n, m_new
