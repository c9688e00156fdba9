"""How far one tensor is from the exact one: in size, in direction, over time, against the rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from xlstm_export.runtime.session import Array

_LEAST, _MOST = -160, 40
"""Powers of two between which sizes of errors are counted; what is beyond counts at the end."""


@dataclass(frozen=True)
class Measures:
    """Errors of a tensor over all its finite numbers, beside the largest and the rms of the rule.

    ``relative_error`` is the largest error over the largest exact magnitude, ``relative_rms`` the
    rms error over the rms of the exact numbers. ``cosine`` is that of the angle between both, NaN
    where one is zero; ``snr_db`` the power of the exact numbers over that of the error, in
    decibels, infinite where there is none.
    """

    mean_error: float
    relative_error: float
    relative_rms: float
    cosine: float
    snr_db: float


@dataclass(frozen=True)
class StepErrors:
    """Errors by step: ``steps`` counts those since the states were zero, the first being 1.

    An output has every step, a state those after which a call returned it. Where several rollouts
    went through a step, the largest and the mean of all of them; rms likewise.
    """

    steps: tuple[int, ...]
    largest: tuple[float, ...]
    mean: tuple[float, ...]
    rms: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """How many errors have which size: ``counts[i]`` lie in [edges[i], edges[i + 1]).

    ``edges`` are in units of the largest error that the rule allows; ``exact`` errors are zero.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    exact: int


@dataclass(frozen=True)
class Unbounded:
    """The first number that is NaN or infinite, where the exact one is not: its step and row.

    Both count from 1; ``count`` is how many there are in all.
    """

    step: int
    row: int
    count: int

    @property
    def words(self) -> str:
        """Where it is."""
        return f"first at step {self.step}, row {self.row}; {self.count} numbers in all"


@dataclass
class _Step:
    largest: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    count: int = 0


@dataclass
class TensorTally:
    """What the measures of a tensor are made of, added up call by call.

    ``is_sequence``: its second axis is time, and every step is counted by itself.
    """

    is_sequence: bool = False
    count: int = 0
    absolute: float = 0.0
    squares: float = 0.0
    exact_squares: float = 0.0
    got_squares: float = 0.0
    product: float = 0.0
    largest: float = 0.0
    largest_exact: float = 0.0
    zeros: int = 0
    sizes: Array = field(default_factory=lambda: np.zeros(_MOST - _LEAST, np.int64))
    by_step: dict[int, _Step] = field(default_factory=dict)
    unbounded: Unbounded | None = None

    def add(self, got: Array, exact: Array, end: int) -> None:
        """Tensors [B, ...] of one call whose last step is number ``end``."""
        if not exact.size:
            return
        got, exact = got.astype(np.float64), exact.astype(np.float64)
        error = np.abs(got - exact)
        if not np.isfinite(error).all():
            self._locate(~np.isfinite(error), end)
            error[~np.isfinite(error)] = np.nan
        self._add_sums(got, exact, error)
        self._count_sizes(error)
        self._add_steps(np.moveaxis(error, 1, 0) if self.is_sequence else error[None], end)

    def measures(self) -> Measures:
        """Over everything that was added."""
        rms_exact, lengths = math.sqrt(self.exact_squares), self.exact_squares * self.got_squares
        return Measures(
            mean_error=self.absolute / self.count if self.count else 0.0,
            relative_error=_ratio(self.largest, self.largest_exact),
            relative_rms=_ratio(math.sqrt(self.squares), rms_exact),
            cosine=self.product / math.sqrt(lengths) if lengths > 0 else math.nan,
            snr_db=_decibels(self.exact_squares, self.squares),
        )

    def steps(self) -> StepErrors:
        """Errors by step, in order."""
        found = sorted(self.by_step.items())
        return StepErrors(
            tuple(step for step, _ in found),
            tuple(s.largest for _, s in found),
            tuple(s.total / s.count if s.count else math.inf for _, s in found),
            tuple(math.sqrt(s.squares / s.count) if s.count else math.inf for _, s in found),
        )

    def histogram(self, allowed: float) -> Histogram:
        """Sizes of errors in units of ``allowed``; empty ends are left out."""
        (filled,) = np.nonzero(self.sizes)
        if not len(filled) or not 0 < allowed < math.inf:
            return Histogram((), (), self.zeros)
        first, last = int(filled[0]), int(filled[-1])
        edges = [math.ldexp(1.0, _LEAST + power) / allowed for power in range(first, last + 2)]
        counts = self.sizes[first : last + 1].tolist()
        return Histogram(tuple(edges), tuple(counts), self.zeros)

    def _locate(self, wrong: Array, end: int) -> None:
        """Remember the first of the numbers that are ``wrong``; steps go before rows."""
        by_time = np.moveaxis(wrong, 1, 0) if self.is_sequence else wrong[None]
        length = len(by_time)
        step, row = np.argwhere(by_time.reshape(length, by_time.shape[1], -1).any(-1))[0]
        count = int(wrong.sum())
        if self.unbounded is None:
            self.unbounded = Unbounded(int(end - length + 1 + step), int(row) + 1, count)
        else:
            before = self.unbounded
            self.unbounded = Unbounded(before.step, before.row, before.count + count)

    def _add_sums(self, got: Array, exact: Array, error: Array) -> None:
        finite = np.isfinite(error)
        if not finite.all():
            got, exact, error = got[finite], exact[finite], error[finite]
        # not by BLAS, whose threads would be waited for
        self.count += error.size
        self.absolute += float(error.sum())
        self.squares += float(np.square(error).sum())
        self.exact_squares += float(np.square(exact).sum())
        self.got_squares += float(np.square(got).sum())
        self.product += float((got * exact).sum())
        self.largest = max(self.largest, float(error.max(initial=0.0)))
        self.largest_exact = max(self.largest_exact, float(np.abs(exact).max(initial=0.0)))

    def _count_sizes(self, error: Array) -> None:
        sized = error[np.isfinite(error) & (error > 0)]
        self.zeros += int((error == 0).sum())
        powers = np.clip(np.frexp(sized)[1] - 1 - _LEAST, 0, len(self.sizes) - 1)
        self.sizes += np.bincount(powers, minlength=len(self.sizes))

    def _add_steps(self, error: Array, end: int) -> None:
        """Errors [T, ...] of the steps up to number ``end``, NaN where they are not finite."""
        error = error.reshape(len(error), -1)
        counts = np.isfinite(error).sum(1)
        error = np.nan_to_num(error)
        largest = np.where(counts == error.shape[1], error.max(1), math.inf)
        numbers = zip(largest, error.sum(1), (error * error).sum(1), counts, strict=True)
        for number, (most, total, squares, count) in enumerate(numbers, end - len(error) + 1):
            step = self.by_step.setdefault(number, _Step())
            step.largest = max(step.largest, float(most))
            step.total += float(total)
            step.squares += float(squares)
            step.count += int(count)


def _ratio(part: float, whole: float) -> float:
    if whole > 0:
        return part / whole
    return math.inf if part > 0 else 0.0


def _decibels(signal: float, noise: float) -> float:
    if noise <= 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
