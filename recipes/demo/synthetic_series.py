"""Random hourly series: days and weeks, trend, level shifts, walks, noise, missing values.

Most have a season of 24 hours, many one of a week on top; the others have any period.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

DAY, WEEK = 24, 168
HARMONICS = 4


@dataclass(frozen=True)
class Series:
    """`values` float32 [B, L] complete; `period` int64 [B] of the stronger season."""

    values: Tensor
    period: Tensor


def random_series(count: int, length: int, generator: torch.Generator) -> Series:
    """`count` series of their own make each; every part is of size 1 before it is weighed."""
    time = torch.arange(length, dtype=torch.float32)
    first = _periods(DAY, count, generator)
    second = _periods(WEEK, count, generator)
    weights = {
        "season": _weights(count, 0.85, 1.5, generator),
        "other": _weights(count, 0.4, 0.8, generator),
        "trend": _weights(count, 0.5, 1.5, generator),
        "shift": _weights(count, 0.2, 1.0, generator),
        "walk": _weights(count, 0.4, 1.0, generator),
        "noise": _weights(count, 0.9, 0.3, generator),
    }
    trend = _trend(count, time, generator)
    growth = 1 + 0.5 * _weights(count, 0.3, 1.0, generator) * trend
    seasons = weights["season"] * _season(first, time, generator)
    seasons = seasons + weights["other"] * _season(second, time, generator)
    values = (
        seasons * growth
        + weights["trend"] * trend
        + weights["shift"] * _shifts(count, length, generator)
        + weights["walk"] * _walk(count, length, generator)
        + weights["noise"] * torch.randn(count, length, generator=generator)
    )
    return Series(values, first)


def holes(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Where values are missing, bool [count, length]: single ones and gaps, in a third of all."""
    has_holes = torch.rand(count, 1, generator=generator) < 1 / 3
    single = torch.rand(count, length, generator=generator) < 0.03
    start = torch.randint(length, (count, 1), generator=generator)
    size = torch.randint(1, 48, (count, 1), generator=generator)
    time = torch.arange(length)
    return has_holes & (single | ((time >= start) & (time < start + size)))


def _weights(count: int, share: float, most: float, generator: torch.Generator) -> Tensor:
    """[count, 1]: uniform up to `most`, zero but for this share of the series."""
    is_there = torch.rand(count, 1, generator=generator) < share
    return is_there * most * torch.rand(count, 1, generator=generator)


def _periods(usual: int, count: int, generator: torch.Generator) -> Tensor:
    """[count]: four of five the usual one, the others from 6 to 200."""
    other = (6 * (200 / 6) ** torch.rand(count, generator=generator)).round().long()
    return torch.where(torch.rand(count, generator=generator) < 0.8, usual, other)


def _season(period: Tensor, time: Tensor, generator: torch.Generator) -> Tensor:
    """Sum over h of a_h sin(2 pi h t / period + phase_h), a_h falling with h, of spread 1.

    One of five is cut off at 0, as of what stands still for a part of its period.
    """
    count = len(period)
    order = torch.arange(1, HARMONICS + 1, dtype=torch.float32)
    decay = 1 + 2 * torch.rand(count, 1, generator=generator)
    amplitude = torch.randn(count, HARMONICS, generator=generator) * order**-decay
    amplitude[:, 0] += amplitude[:, 0].sign()
    amplitude = amplitude / (amplitude.square().sum(1, keepdim=True) / 2).sqrt()
    phase = 2 * torch.pi * torch.rand(count, HARMONICS, 1, generator=generator)
    turns = order[:, None] * time / period[:, None, None]  # [count, HARMONICS, L]
    waves = (amplitude[..., None] * torch.sin(2 * torch.pi * turns + phase)).sum(1)
    stands_still = torch.rand(count, 1, generator=generator) < 0.2
    return torch.where(stands_still, 1.5 * waves.clamp(min=0), waves)


def _trend(count: int, time: Tensor, generator: torch.Generator) -> Tensor:
    """A line that may bend once, from 0 to about 1 or -1 over the series."""
    place = time / len(time)
    slope, bend = torch.randn(2, count, 1, generator=generator)
    at = torch.rand(count, 1, generator=generator)
    bends = torch.rand(count, 1, generator=generator) < 0.3
    return slope * place + bends * bend * (place - at).clamp(min=0)


def _shifts(count: int, length: int, generator: torch.Generator) -> Tensor:
    """A step about every 300 values, each of size 1."""
    jumps = torch.randn(count, length, generator=generator)
    is_jump = torch.rand(count, length, generator=generator) < 1 / 300
    return (jumps * is_jump).cumsum(1)


def _walk(count: int, length: int, generator: torch.Generator) -> Tensor:
    """A random walk that comes to a spread of 1 after 512 steps."""
    return torch.randn(count, length, generator=generator).cumsum(1) / 512**0.5
