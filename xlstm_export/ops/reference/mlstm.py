"""mLSTM: stabilised recurrence, step by step and chunk by chunk.

One step, with log f = logsigmoid(f):
    m' = max(log f + m, i);  F = exp(log f + m - m');  I = exp(i - m')
    C' = F C + I k v^T;  n' = F n + I k
    h  = q^T C' / (max(|q^T n'|, exp(-m')) + eps)
q (scale_side 0) or k (scale_side 1) carries 1/sqrt(K). Source: xLSTM paper (Beck et al. 2024),
eq. 19-27; eps stands outside the max, as in the released models.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xlstm_export.ops.reference.lengths import valid_steps


class MLSTMResult(NamedTuple):
    """h [B,T,N,V] in the dtype of v; C [B,N,K,V], n [B,N,K], m [B,N] in the state dtype."""

    h: Tensor
    C: Tensor
    n: Tensor
    m: Tensor


def _gates(i: Tensor, f: Tensor, lengths: Tensor, soft_cap: float) -> tuple[Tensor, Tensor, Tensor]:
    """Masked input gate and log forget gate [B,T,N], and the mask [B,T]."""
    if soft_cap > 0:
        i, f = soft_cap * torch.tanh(i / soft_cap), soft_cap * torch.tanh(f / soft_cap)
    valid = valid_steps(lengths, i.shape[0], i.shape[1])
    log_f = torch.where(valid[..., None], logsigmoid(f), 0.0)
    return torch.where(valid[..., None], i, -torch.inf), log_f, valid


def _operands(
    q: Tensor, k: Tensor, v: Tensor, valid: Tensor, state: Tensor, scale_side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v in the state dtype, scaled, with invalid steps zeroed."""
    mask = valid[..., None, None]
    q, k, v = (torch.where(mask, x.to(state.dtype), 0.0) for x in (q, k, v))
    scale = q.shape[-1] ** -0.5
    return (q, k * scale, v) if scale_side == 1 else (q * scale, k, v)


def _result(
    h: Tensor,
    after: tuple[Tensor, Tensor, Tensor],
    before: tuple[Tensor, Tensor, Tensor],
    valid: Tensor,
    out_dtype: torch.dtype,
) -> MLSTMResult:
    """h, 0 at invalid steps, and the states; a row without a step keeps its own bit for bit."""
    moved = valid.any(1)
    if moved.all():
        C, n, m = after
    else:
        C, n, m = (
            torch.where(moved.view(-1, *[1] * (new.dim() - 1)), new, old)
            for new, old in zip(after, before, strict=True)
        )
    return MLSTMResult(torch.where(valid[..., None, None], h, 0.0).to(out_dtype), C, n, m)


def mlstm_recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    C: Tensor,
    n: Tensor,
    m: Tensor,
    lengths: Tensor,
    *,
    gate_soft_cap: float = 0.0,
    eps: float = 1e-6,
    scale_side: int = 0,
    chunk_size: int = 64,
) -> MLSTMResult:
    """The recurrence one step at a time, in the dtype of ``C``.

    Shapes as in ``ops.catalog.MLSTM``. ``chunk_size`` is accepted and has no effect.
    """
    del chunk_size
    out_dtype = v.dtype
    i, log_f, valid = _gates(i, f, lengths, gate_soft_cap)
    q, k, v = _operands(q, k, v, valid, C, scale_side)
    before = (C, n, m)
    # in place, five times as fast where C is large, and rounded as often as by plain operators:
    # validate's rule allows what this form is off by
    C, outer = C.clone(), torch.empty_like(C)
    hs = []
    for t in range(v.shape[1]):
        m_new = torch.maximum(log_f[:, t] + m, i[:, t])
        forget = torch.exp(log_f[:, t] + m - m_new)
        write = torch.exp(i[:, t] - m_new)
        torch.mul(k[:, t, :, :, None], v[:, t, :, None, :], out=outer)
        C.mul_(forget[..., None, None]).add_(outer.mul_(write[..., None, None]))
        n = forget[..., None] * n + write[..., None] * k[:, t]
        m = m_new
        numerator = (q[:, t, :, None, :] @ C).squeeze(-2)
        q_dot_n = (q[:, t] * n).sum(-1)
        denominator = torch.maximum(q_dot_n.abs(), torch.exp(-m)) + eps
        hs.append(numerator / denominator[..., None])
    return _result(torch.stack(hs, dim=1), (C, n, m), before, valid, out_dtype)


def mlstm_chunkwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    C: Tensor,
    n: Tensor,
    m: Tensor,
    lengths: Tensor,
    *,
    gate_soft_cap: float = 0.0,
    eps: float = 1e-6,
    scale_side: int = 0,
    chunk_size: int = 64,
) -> MLSTMResult:
    """The same recurrence in chunks of ``chunk_size``: quadratic within, linear across.

    Shapes as in ``ops.catalog.MLSTM``.
    """
    out_dtype = v.dtype
    i, log_f, valid = _gates(i, f, lengths, gate_soft_cap)
    q, k, v = _operands(q, k, v, valid, C, scale_side)
    before = (C, n, m)
    hs = []
    for start in range(0, v.shape[1], chunk_size):
        part = slice(start, start + chunk_size)
        qc, kc, vc = (x[:, part].transpose(1, 2) for x in (q, k, v))  # [B,N,L,*]
        ic, fc = (x[:, part].transpose(1, 2) for x in (i, log_f))  # [B,N,L]
        h, C, n, m = _chunk(qc, kc, vc, ic, fc, C, n, m, eps)
        hs.append(h.transpose(1, 2))
    return _result(torch.cat(hs, dim=1), (C, n, m), before, valid, out_dtype)


def _chunk(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, log_f: Tensor,
    C: Tensor, n: Tensor, m: Tensor, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """One chunk: q,k [B,N,L,K], v [B,N,L,V], i,log_f [B,N,L]; states as in MLSTMResult."""
    length = i.shape[-1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    # decay[t,s] = sum of log f over s < r <= t, each column summed on its own: no differences
    strict = causal.tril(-1)
    decay = torch.where(strict, log_f[..., :, None], 0.0).cumsum(-2)
    from_start = log_f.cumsum(-1)
    log_d = torch.where(causal, decay + i[..., None, :], -torch.inf)
    m_row = torch.maximum(from_start + m[..., None], log_d.amax(-1))
    inter = torch.exp(from_start + m[..., None] - m_row)
    weights = (q @ k.transpose(-1, -2)) * torch.exp(log_d - m_row[..., None])
    numerator = inter[..., None] * (q @ C) + weights @ v
    q_dot_n = inter * (q @ n[..., None]).squeeze(-1) + weights.sum(-1)
    h = numerator / (torch.maximum(q_dot_n.abs(), torch.exp(-m_row)) + eps)[..., None]

    to_end = decay[..., -1, :] + i
    m_new = torch.maximum(from_start[..., -1] + m, to_end.amax(-1))
    keep = torch.exp(from_start[..., -1] + m - m_new)
    write = torch.exp(to_end - m_new[..., None])
    weighted_k = k * write[..., None]
    C = keep[..., None, None] * C  # then in place: a large C is written once, not three times
    C.flatten(0, 1).baddbmm_(weighted_k.flatten(0, 1).transpose(-1, -2), v.flatten(0, 1))
    n = keep[..., None] * n + weighted_k.sum(-2)
    return h, C, n, m_new
