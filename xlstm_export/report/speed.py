"""Who is how fast: a figure and a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xlstm_export.report.figures import Shown
from xlstm_export.report.svg import FIRST, INK, SECOND, draw
from xlstm_export.validation.speed import Speed, Speeds

CAUTION = (
    "Medians of a few calls in turn, one row, on this machine as busy as it was: an impression, "
    "no benchmark"
)


def speed_figure(speeds: Speeds | None) -> list[Shown]:
    """Bars of everyone's medians."""
    if speeds is None or len(speeds.measured) < 2:
        return []
    kinds = ("step", "call") if speeds.measured[0].step is not None else ("call",)

    def plot(figure: Any) -> None:
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        figure.subplots_adjust(left=0.4, right=0.98, wspace=0.12)
        names = [speed.who for speed in speeds.measured]
        for axes, kind, colour in zip(panels, kinds, (FIRST, SECOND), strict=False):
            taken = [1e3 * (getattr(speed, kind) or 0.0) for speed in speeds.measured]
            axes.barh(names, taken, color=colour, height=0.6)
            for row, milliseconds in enumerate(taken):
                axes.text(milliseconds, row, f" {milliseconds:.3g}", va="center", color=INK)
            axes.set_xlim(0, 1.35 * max(taken))
            axes.set_title("a step, ms" if kind == "step" else "a call, ms", pad=2)
            axes.grid(visible=False, axis="y")
        panels[0].invert_yaxis()

    title = "Milliseconds of everyone: " + "; ".join(
        f"{s.who} {_words(s)}" for s in speeds.measured
    )
    height = 0.9 + 0.22 * len(speeds.measured)
    caption = f"{CAUTION}. A call is {speeds.call}. Shorter is faster."
    return [Shown(draw("speed", title, height, plot), caption)]


def speed_lines(speeds: Speeds | None) -> Iterator[str]:
    """A section of Markdown; nothing where nothing was timed."""
    if speeds is None or not speeds.measured:
        return
    yield from ("## Speed", "", f"{CAUTION}.", "")
    yield f"| | step, ms | {speeds.call}, ms | calls | computed by |"
    yield "|---|---|---|---|---|"
    for s in speeds.measured:
        step = "–" if s.step is None else f"{1e3 * s.step:.3g}"
        yield f"| {s.who} | {step} | {1e3 * s.call:.3g} | {s.turns} | {s.name} |"
    yield ""
    yield from (f"- not timed: {reason}" for reason in speeds.missing)
    yield ""


def _words(speed: Speed) -> str:
    call = f"{1e3 * speed.call:.3g} a call"
    return call if speed.step is None else f"{1e3 * speed.step:.3g} a step and {call}"
