"""Contenders of one workload: compared with float64, then timed in turns; tables and rows.

Needs nothing but numpy, unlike benchmarks/harness.py: a GPU machine may have little installed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.contender import Maker, Side
from benchmarks.gpu.device import Timer
from tests.cases import Array

AGREEMENT = {"float32": 1e-2, "bfloat16": 5e-2, "float16": 5e-2}
"""Largest difference of a contender that is timed. tests/gpu holds our kernels to the real rule;
this one only sees that the work is the same, TF32 and states in bfloat16 included."""


@dataclass(frozen=True)
class Row:
    """What is known of one contender: times in seconds per call, or why there are none."""

    name: str
    mode: str
    seconds: tuple[float, ...] = ()
    """The median call of every turn."""
    difference: float | None = None
    """Largest difference from float64 over the largest number, of the worst output."""
    work: float | None = None
    reason: str = ""

    @property
    def median(self) -> float:
        """The middle turn."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Table:
    """The rows of one workload in one type; the first row is ours."""

    title: str
    dtype: str
    steps: int
    unit: str
    """Of the rows' work: B or FLOP."""
    rows: tuple[Row, ...]

    def ratio(self, row: Row) -> float | None:
        """Time of ``row`` over ours of the same mode, median of the turns' ratios."""
        own = next((r for r in self.rows if r.mode == row.mode and r.seconds), None)
        if own is None or not own.name.startswith(OWN) or own is row or not row.seconds:
            return None
        pairs = zip(own.seconds, row.seconds, strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)


OWN = "ours"


@dataclass(frozen=True)
class Effort:
    """How long to measure: ``turns`` of every contender, at most ``seconds`` of GPU time each."""

    turns: int = 5
    seconds: float = 0.25
    most_calls: int = 20


def difference(got: Mapping[str, Array], exact: Mapping[str, Array]) -> float:
    """Of every row of ``got`` from ``exact``, whose rows it repeats: at both ends of the batch."""
    worst = 0.0
    for name, wanted in exact.items():
        scale = max(float(np.abs(wanted).max()), 1e-30)
        for rows in (got[name][: len(wanted)], got[name][-len(wanted) :]):
            far = np.abs(rows.astype(np.float64) - wanted).max()
            worst = float(np.fmax(worst, far / scale)) if np.isfinite(far) else float("inf")
    return worst


def measure(
    makers: Sequence[Maker],
    exact: Mapping[str, Array],
    dtype: str,
    timer: Timer,
    effort: Effort,
    work: float,
) -> tuple[Row, ...]:
    """A row for each maker, in order: timed where it can be built and its numbers are right."""
    rows: list[Row | tuple[Maker, Side, float | None]] = []
    for maker in makers:
        try:
            side = maker.build()
            side.call()
            timer.stream.wait()
            far = difference(side.results(), exact) if side.results else None
        except Exception as error:  # compilers, Triton, CUDA and torch raise types of their own
            rows.append(Row(maker.name, maker.mode, reason=first_line(error)))
            continue
        if far is not None and not far < AGREEMENT[dtype]:
            reason = f"does not agree with float64: difference {far:.1e}"
            rows.append(Row(maker.name, maker.mode, difference=far, reason=reason))
        else:
            rows.append((maker, side, far))
    able = [entry for entry in rows if not isinstance(entry, Row)]
    times = iter(take_turns([side for _, side, _ in able], timer, effort))
    return tuple(
        entry if isinstance(entry, Row) else _row(*entry, next(times), work) for entry in rows
    )


def take_turns(sides: Sequence[Side], timer: Timer, effort: Effort) -> list[tuple[float, ...]]:
    """Seconds per call of each side: the median call of every turn, sides in turn."""
    calls = []
    for side in sides:
        timer.seconds(side.call)
        once = max(timer.seconds(side.call), 1e-6)
        calls.append(int(np.clip(effort.seconds / effort.turns / once, 1, effort.most_calls)))
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(effort.turns):
        for side, count, taken in zip(sides, calls, seconds, strict=True):
            turn = statistics.median(timer.seconds(side.call) for _ in range(count))
            taken.append(turn / side.repeats)
    return [tuple(taken) for taken in seconds]


def first_line(error: BaseException) -> str:
    """What went wrong, short enough for a table."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 100 else text[:97] + "..."


def _row(
    maker: Maker, side: Side, far: float | None, seconds: tuple[float, ...], work: float
) -> Row:
    return Row(maker.name, maker.mode, seconds, far, side.work or work)


def lines_of(table: Table) -> list[str]:
    """The table as text."""
    scale, unit = (1e12, "TFLOP/s") if table.unit == "FLOP" else (1e9, "GB/s")
    head = ("contender", "mode", "us", "us/step", "least..greatest", "ratio", unit, "difference")
    body: list[tuple[str, ...]] = []
    for row in table.rows:
        if not row.seconds:
            body.append((row.name, row.mode, "none", row.reason))
            continue
        us, ratio = row.median * 1e6, table.ratio(row)
        spread = f"{min(row.seconds) * 1e6:.1f}..{max(row.seconds) * 1e6:.1f}"
        rate = "" if row.work is None else f"{row.work / row.median / scale:.1f}"
        body.append((
            row.name, row.mode, f"{us:.1f}", f"{us / table.steps:.2f}", spread,
            "" if ratio is None else f"{ratio:.2f}", rate,
            "" if row.difference is None else f"{row.difference:.1e}",
        ))  # fmt: skip
    full = [head, *(line for line in body if len(line) == len(head))]
    widths = [max(len(line[i]) for line in full) for i in range(len(head))]
    widths[0] = max([widths[0], *(len(line[0]) for line in body)])
    lines = [f"{table.title}, {table.dtype}"]
    for line in (head, *body):
        cells = [
            cell.ljust(w) if place < 2 else cell.rjust(w)
            for place, (cell, w) in enumerate(zip(line, widths, strict=False))
        ]
        lines.append("  " + "  ".join(cells).rstrip() if len(line) == len(head)
                     else "  " + "  ".join(cells[:3]) + "  " + line[3])  # fmt: skip
    return lines
