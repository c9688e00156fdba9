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
import sys
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
    difference: float | None = None
    """Largest difference of its results from ours, relative to the largest number in them."""
    work: float | None = None
    """FLOP or bytes, where a rate is asked for."""
    repeats: int = 1
    """How many times ``call`` does the work, where starting it takes too long for once."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one contender: the median call of every turn."""

    name: str
    turns: tuple[float, ...]
    difference: float | None = None
    work: float | None = None

    @property
    def median(self) -> float:
        """The middle turn."""
        return statistics.median(self.turns)

    @property
    def rate(self) -> float | None:
        """Work per second of the middle turn."""
        return None if self.work is None else self.work / self.median


@dataclass(frozen=True)
class Ratio:
    """How many times faster one side is: median of the turns' ratios, least and greatest."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Comparison:
    """Contenders that took turns; the first one is ours. ``unit`` is that of their work."""

    what: str
    timings: tuple[Timing, ...]
    unit: str = ""
    missing: tuple[tuple[str, str], ...] = ()
    """Contenders that could not take part, and why."""

    def ratio(self, own: int, peer: int) -> Ratio:
        """Time of contender ``peer`` over that of ``own``, turn by turn."""
        pairs = zip(self.timings[own].turns, self.timings[peer].turns, strict=True)
        ratios = [theirs / ours for ours, theirs in pairs]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))

    def relative_rate(self, own: int, limit: int) -> float:
        """Rate of contender ``own`` over that of ``limit``, median of the turns' ratios."""
        a, b = self.timings[own], self.timings[limit]
        if a.work is None or b.work is None:
            raise ValueError(f"{self.what}: {a.name} or {b.name} has no work to make a rate of")
        return self.ratio(own, limit).median * a.work / b.work


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
    unit: str = "",
    missing: Sequence[tuple[str, str]] = (),
) -> Comparison:
    """Measure ``contenders`` in turns A B A B, after ``warmup`` untimed calls of each.

    A turn is ``calls`` timed calls after a pause; where there are several, one untimed call
    precedes them and brings back the caches. Medians go to stderr as soon as they are known.
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
                times.append(_turn(contender.call, calls) / contender.repeats)
    finally:
        gc.enable()
    timings = [
        Timing(c.name, tuple(t), c.difference, c.work)
        for c, t in zip(contenders, seconds, strict=True)
    ]
    print(
        f"{what}: " + ", ".join(f"{t.name} {t.median * 1e3:.3f} ms" for t in timings),
        file=sys.stderr,
    )
    return Comparison(what, tuple(timings), unit, tuple(missing))


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


def print_facts(facts: Mapping[str, Any], console: Console) -> None:
    """One fact a line."""
    for name, value in facts.items():
        console.print(f"{name}: {value}", markup=False, highlight=False)


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
    title = "Median of the turns; ratio: time over the first one's, median (least to greatest)"
    table = Table(title=title)
    for name, side in (("work", "left"), ("contender", "left"), ("ms", "right"), ("ratio", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    table.add_column("rate", justify="right")
    table.add_column("difference", justify="right")
    for comparison in comparisons:
        table.add_section()
        for index, timing in enumerate(comparison.timings):
            table.add_row("" if index else comparison.what, *_cells(comparison, index, timing))
        for name, reason in comparison.missing:
            table.add_row("", name, "none", reason)
    console.print(table)


def _cells(comparison: Comparison, index: int, timing: Timing) -> list[str]:
    """Contender, ms, ratio, rate, difference."""
    ratio = ""
    if index:
        r = comparison.ratio(0, index)
        ratio = f"{r.median:.2f} ({r.least:.2f} to {r.greatest:.2f})"
    rate = "" if timing.rate is None else f"{timing.rate / 1e9:.1f} {comparison.unit}"
    difference = "" if timing.difference is None else f"{timing.difference:.1e}"
    return [timing.name, f"{timing.median * 1e3:.3f}", ratio, rate, difference]


def print_bars(bars: Sequence[Bar], console: Console) -> None:
    """Every promise with what was measured; a word where a try-out promises nothing."""
    if not bars:
        console.print("No bars: they are for full sizes.")
        return
    table = Table(title="Bars")
    for name in ("promise", "measured", "limit", ""):
        table.add_column(name, justify="left" if name == "promise" else "right")
    for bar in bars:
        sign = ">=" if bar.at_least else "<="
        verdict = "[green]pass[/green]" if bar.passed else "[red]fail[/red]"
        measured, limit = f"{bar.measured:.2f} {bar.unit}", f"{sign} {bar.limit:g} {bar.unit}"
        table.add_row(bar.what, measured, limit, verdict)
    console.print(table)
