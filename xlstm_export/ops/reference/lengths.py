"""The ``lengths`` rule every operator shares: valid steps per row, -1 = all."""

from __future__ import annotations

import torch


def valid_steps(lengths: torch.Tensor, batch: int, time: int) -> torch.Tensor:
    """Boolean [B, T]: True where step t belongs to row b (t < lengths[b], -1 = all T).

    ``lengths`` is int32 of shape [B] or [1]; values above T count as T.
    """
    lengths = lengths.to(torch.int64).expand(batch)
    lengths = torch.where(lengths < 0, time, lengths)
    return torch.arange(time) < lengths[:, None]
