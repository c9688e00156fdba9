"""Paired measuring: contenders take turns in one process, and ratios are taken turn by turn.

Absolute times of a shared machine drift; two contenders measured in the same second drift alike.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from xlstm_export.environment import versions

PAUSE = 0.02
"""Seconds before each turn, in which the thread pool of the other contender stops spinning."""


@dataclass(frozen=True)
class Contender:
    """One side of a comparison: ``call`` does the whole work once."""

    name: str
    call: Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one contender: the median call of every turn."""

    name: str
    turns: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle turn."""
        return statistics.median(self.turns)


@dataclass(frozen=True)
class Ratio:
    """How many times faster one side is: median of the turns' ratios, least and greatest."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Comparison:
    """Contenders that did the same work in turns; the first one is ours."""

    what: str
    timings: tuple[Timing, ...]
    difference: float | None = None
    """Largest difference of the results, relative to the largest number in them."""

    def speedup(self, peer: int = 1) -> Ratio:
        """Time of contender ``peer`` over ours, turn by turn."""
        ours, theirs = self.timings[0].turns, self.timings[peer].turns
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True)
class Bar:
    """A promise and what was measured."""

    what: str
    measured: float
    limit: float
    unit: str
    at_least: bool = True

    @property
    def passed(self) -> bool:
        """Whether the promise holds."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def compare(
    what: str,
    contenders: Sequence[Contender],
    *,
    turns: int,
    calls: int = 1,
    warmup: int = 1,
    difference: float | None = None,
) -> Comparison:
    """Measure ``contenders`` in turns A B A B, after ``warmup`` untimed calls of each.

    A turn is ``calls`` timed calls after a pause; where there are several, one untimed call
    precedes them and brings back the caches.
    """
    for contender in contenders:
        for _ in range(warmup):
            contender.call()
    seconds: list[list[float]] = [[] for _ in contenders]
    gc.collect()
    gc.disable()
    try:
        for _ in range(turns):
            for contender, times in zip(contenders, seconds, strict=True):
                times.append(_turn(contender.call, calls))
    finally:
        gc.enable()
    timings = [Timing(c.name, tuple(t)) for c, t in zip(contenders, seconds, strict=True)]
    return Comparison(what, tuple(timings), difference)


def _turn(call: Callable[[], object], calls: int) -> float:
    time.sleep(PAUSE)
    if calls > 1:
        call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def machine_facts(threads: int) -> dict[str, Any]:
    """What a reader needs to judge the numbers; ``load`` above 0.5 means: measure again."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "versions": versions(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content``; dataclasses in it become objects."""
    text = json.dumps(content, indent=1, default=dataclasses.asdict)
    path.write_text(text + "\n", encoding="utf-8")


def print_comparisons(comparisons: Sequence[Comparison], console: Console) -> None:
    """One row per contender, with its speed beside ours."""
    table = Table(title="Median of the turns; ratio: time over ours, median (least to greatest)")
    for name, side in (("work", "left"), ("contender", "left"), ("ms", "right"), ("ratio", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    table.add_column("difference", justify="right")
    for comparison in comparisons:
        table.add_section()
        for index, timing in enumerate(comparison.timings):
            ratio, difference = "", ""
            if index:
                r = comparison.speedup(index)
                ratio = f"{r.median:.2f} ({r.least:.2f} to {r.greatest:.2f})"
            elif comparison.difference is not None:
                difference = f"{comparison.difference:.1e}"
            what = "" if index else comparison.what
            table.add_row(what, timing.name, f"{timing.median * 1e3:.2f}", ratio, difference)
    console.print(table)


def print_bars(bars: Sequence[Bar], console: Console) -> None:
    """Every promise with what was measured."""
    table = Table(title="Bars")
    for name in ("promise", "measured", "limit", ""):
        table.add_column(name, justify="left" if name == "promise" else "right")
    for bar in bars:
        sign = ">=" if bar.at_least else "<="
        verdict = "[green]pass[/green]" if bar.passed else "[red]fail[/red]"
        measured, limit = f"{bar.measured:.2f} {bar.unit}", f"{sign} {bar.limit:g} {bar.unit}"
        table.add_row(bar.what, measured, limit, verdict)
    console.print(table)
