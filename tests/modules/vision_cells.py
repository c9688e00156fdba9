"""What vision_lstm's cells take, keep and give, on xlstm's own functions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from xlstm.blocks.mlstm.backends import parallel_stabilized_simple
from xlstm.components.ln import MultiHeadLayerNorm


class Norm(MultiHeadLayerNorm):
    """Its norm is known by its full name."""


Norm.__qualname__ = "MultiHeadLayerNorm"


class MatrixLSTMCell(nn.Module):
    """Gates from q, k, v [B,S,D]; it has its number of heads for itself, and no configuration."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, num_heads
        self.igate, self.fgate = nn.Linear(3 * dim, num_heads), nn.Linear(3 * dim, num_heads)
        self.outnorm = Norm(dim, weight=True, bias=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B,S,D]."""
        together = torch.cat([q, k, v], -1)
        gates = (g(together).transpose(1, 2)[..., None] for g in (self.igate, self.fgate))
        by_head = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        h = self.outnorm(parallel_stabilized_simple(*by_head, *gates))
        return h.transpose(1, 2).flatten(-2)


class CausalConv1d(nn.Module):
    """A depthwise convolution whose last outputs are cut away."""

    def __init__(self, dim: int, kernel_size: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.pad = kernel_size - 1
        self.conv = nn.Conv1d(dim, dim, kernel_size, padding=self.pad, groups=dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B,S,D]."""
        return self.conv(x.transpose(1, 2))[..., : -self.pad].transpose(1, 2)
