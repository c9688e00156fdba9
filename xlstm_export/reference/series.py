"""Statistics of series with missing values."""

from __future__ import annotations

import torch
from torch import Tensor


class Series:
    """Series [...,T] along the last axis, NaN where a value is missing."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.count = (~x.isnan()).sum(-1, keepdim=True)

    def total(self, values: Tensor) -> Tensor:
        """Sum [...,1] of ``values`` [...,T], over what is there."""
        return torch.where(self.x.isnan(), 0.0, values).sum(-1, keepdim=True)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over what is there, 0 where nothing is."""
        return self.total(values) / self.count.clamp_min(1)

    def centred(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [...,1], and (distances from it) / unit [...,T], 0 where something is missing, with
        the unit [...,1]: the largest distance, or 1 without one.
        """
        first = self.mean(self.x)
        loc = first + self.mean(self.x - first)
        away = (self.x - loc).nan_to_num(0.0)
        farthest = away.abs().amax(-1, keepdim=True)
        unit = torch.where(farthest > 0, farthest, 1.0)
        return loc, away / unit, unit
