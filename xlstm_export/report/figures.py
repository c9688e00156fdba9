"""The figures of a report: errors over time, over layers, and in sizes; forecasts; checks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xlstm_export.report.svg import BACK, BAD, FIRST, INK, SECOND, decades, draw
from xlstm_export.validation.measures.forecast import ForecastExample
from xlstm_export.validation.measures.tensor import StepErrors
from xlstm_export.validation.result import Check, Report
from xlstm_export.validation.tally import TensorResult

_MOST_POINTS = 240
"""More steps than that are drawn as the largest error of each stretch."""
_RULE = "rule"
_LEAST = 1e-4
"""In units of the rule: smaller errors are drawn as this one."""

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Shown:
    """A figure on the page: SVG, and what it shows in words."""

    svg: str
    caption: str


def figures(report: Report) -> list[Shown]:
    """The figures that ``report`` has numbers for."""
    wanted = (_over_time(report), _over_layers(report), _in_sizes(report))
    return [shown for shown in wanted if shown is not None]


def _over_time(report: Report) -> Shown | None:
    """One panel for the outputs and one for each kind of state, all against the rule."""
    kinds: dict[str, list[TensorResult]] = defaultdict(list)
    for result in _stepped(report):
        kinds["output" if result.kind == "output" else _kind_of(result.name)].append(result)
    if not kinds:
        return None
    last = max(r.by_step.steps[-1] for rs in kinds.values() for r in rs if r.by_step)

    def plot(figure: Any) -> None:
        panels = figure.subplots(len(kinds), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (kind, results) in zip(panels, kinds.items(), strict=True):
            _panel(axes, kind, results)
        panels[-1].set_xlabel("step since the states were zero")
        panels[-1].set_xlim(1, max(2, last))
        low, high = (int(np.floor(edge)) for edge in panels[-1].get_ylim())
        apart = 1 if high - low < 3 else 2
        powers = [p for p in range(-4, 7) if low <= p <= high and p % apart == 0]
        panels[-1].set_yticks(powers, [f"1e{p}" if p else _RULE for p in powers])

    title = f"Largest error by step in {len(kinds)} kinds of tensors, in units of the rule"
    caption = (
        "Largest error at each step, in units of what the rule allows (the dashed line). One line "
        "for each tensor, darker for deeper layers; a line that rises to the right would be a "
        "drift."
    )
    return Shown(draw("time", title, 0.65 + 0.7 * len(kinds), plot), caption)


def _panel(axes: Any, kind: str, results: Sequence[TensorResult]) -> None:
    for place, result in enumerate(results):
        assert result.by_step is not None
        steps, errors = thinned(result.by_step)
        strength = 0.35 + 0.65 * (place + 1) / len(results)
        marks = "o" if len(steps) == 1 else None
        sizes = _in_rule(errors, result.judgement.max_allowed)
        axes.plot(steps, np.log10(sizes), color=FIRST, lw=0.9, alpha=strength, marker=marks)
    axes.axhline(0, color=BAD, linewidth=1, linestyle=(0, (4, 2)))
    axes.set_title(kind, pad=2)


def _over_layers(report: Report) -> Shown | None:
    """A row for each layer with states, a column for each call."""
    layers: dict[int, list[Floats]] = defaultdict(list)
    for result in _stepped(report):
        number = result.name.partition(".")[0]
        if result.kind == "state" and number.isdigit() and result.by_step:
            allowed = result.judgement.max_allowed
            layers[int(number)].append(_in_rule(result.by_step.largest, allowed))
            steps = result.by_step.steps
    if len(layers) < 2 or len({len(row) for rows in layers.values() for row in rows}) != 1:
        return None
    grid = np.stack([np.max(layers[number], axis=0) for number in sorted(layers)])

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        figure.subplots_adjust(right=0.99)
        image = axes.imshow(np.log10(grid), aspect="auto", cmap="cividis", vmin=-3, vmax=1)
        bad = np.argwhere(grid > 1)
        axes.scatter(bad[:, 1], bad[:, 0], marker="x", color=BAD, s=14, linewidths=1)
        ticks = np.unique(np.linspace(0, len(steps) - 1, 6).round().astype(int))
        axes.set_xticks(ticks, [str(steps[tick]) for tick in ticks])
        rows = np.unique(np.linspace(0, len(grid) - 1, min(8, len(grid))).round().astype(int))
        axes.set_yticks(rows, [str(sorted(layers)[row]) for row in rows])
        axes.set_xlabel("step after which the states were returned")
        axes.set_ylabel("layer with states")
        axes.grid(visible=False)
        bar = figure.colorbar(image, ax=axes, ticks=[-3, -2, -1, 0, 1], pad=0.01)
        bar.ax.set_yticklabels(["0.001", "0.01", "0.1", "the rule", "10"])
        bar.outline.set_linewidth(0.4)

    beyond = int((grid > 1).sum())
    words = f"{beyond} places are beyond the rule" if beyond else "none is beyond the rule"
    title = f"Errors of the states of {len(grid)} layers after {len(steps)} calls: {words}"
    caption = (
        "The worst state of each layer after each call, in units of the rule; crosses mark what is "
        "beyond it. A fault begins in one row and goes on in those below."
    )
    return Shown(draw("layers", title, min(4.2, 1.4 + 0.1 * len(grid)), plot), caption)


def _in_sizes(report: Report) -> Shown | None:
    """How many numbers have errors of which size, over all outputs and states."""
    groups: dict[str, dict[int, int]] = {"outputs": {}, "states": {}, "operators": {}}
    for result in report.results:
        if result.histogram is not None:
            counts = groups[f"{result.kind}s"]
            for edge, count in zip(result.histogram.edges, result.histogram.counts, strict=False):
                power = math.floor(math.log2(edge) + 0.5)
                counts[power] = counts.get(power, 0) + count
    groups = {name: counts for name, counts in groups.items() if counts}
    if not groups:
        return None

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        styles, most = ((FIRST, "-"), (SECOND, "--"), (INK, ":")), 1
        for (name, counts), (colour, line) in zip(groups.items(), styles, strict=False):
            powers = np.arange(min(counts), max(counts) + 2)
            heights = np.array([counts.get(int(power), 0) for power in powers]) / sum(
                counts.values()
            )
            sizes = powers * math.log10(2)
            axes.step(sizes, 100 * heights, where="post", color=colour, ls=line, label=name)
            most = max(most, int(np.ceil(sizes[-1])))
        axes.axvline(0, color=BAD, linewidth=1, linestyle=(0, (4, 2)))
        axes.set_xlim(-6, most)
        decades(axes.xaxis, -6, most, {0: _RULE})
        axes.set_xlabel("error, in units of what the rule allows")
        axes.set_ylabel("% of the numbers")
        axes.legend(loc="upper left")

    title = "Sizes of errors in units of the rule, of outputs, states and operators"
    caption = (
        "How large the errors are, each in units of what the rule allows for its tensor: what lies "
        "right of the dashed line breaks the rule. Errors of exactly zero are left out."
    )
    return Shown(draw("sizes", title, 2.4, plot), caption)


def forecast_figure(example: ForecastExample, name: str) -> Shown:
    """One series with both forecasts: bands over each other."""
    start = len(example.context)

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(range(start), example.context, color=INK, linewidth=0.9, label="series")
        ahead = np.arange(start, start + len(example.subject))
        exact, got = np.array(example.reference), np.array(example.subject)
        axes.fill_between(
            ahead, exact[:, 0], exact[:, -1], color=FIRST, alpha=0.25, linewidth=0,
            label="reference, band",
        )  # fmt: skip
        middle = exact.shape[1] // 2
        axes.plot(ahead, exact[:, middle], color=FIRST, linewidth=2.4, label="reference, middle")
        axes.plot(ahead, got[:, middle], color=BACK, linewidth=0.8, label="_")
        axes.plot(
            ahead, got[:, middle], color=SECOND, linewidth=1, linestyle=(0, (3, 2)),
            label="bundle, middle",
        )  # fmt: skip
        for edge in (0, -1):
            axes.plot(ahead, got[:, edge], color=SECOND, linewidth=0.8, linestyle=(0, (1, 2)))
        if example.observed:
            axes.plot(
                ahead[: len(example.observed)], example.observed, color=INK, linewidth=0.9,
                linestyle=":", label="what came",
            )  # fmt: skip
        axes.set_xlabel("step")
        axes.legend(loc="best", fontsize=7)

    title = "A series, its forecast by the reference, and by the bundle on top"
    caption = (
        "The forecast of one of the series that were drawn. Lines of the bundle lie on those of "
        "the reference where both are one."
    )
    return Shown(draw(f"forecast-{name}", title, 2.6, plot), caption)


def check_figure(check: Check, number: int) -> Shown:
    """The numbers of a check over steps."""

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        styles = ((FIRST, "-"), (SECOND, (0, (3, 2))), (INK, ":"))
        for (name, points), (colour, line) in zip(check.series.items(), styles, strict=False):
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=colour, linestyle=line, linewidth=1.2, label=name)
        axes.set_xlabel("step")
        axes.set_ylabel(check.axis)
        axes.legend(loc="best")

    title = f"{check.name}: {check.axis or 'values'} over steps"
    caption = f"{check.axis or check.name}, by stretches of steps. {check.reason}."
    return Shown(draw(f"check-{number}", title, 2.2, plot), caption)


def _stepped(report: Report) -> list[TensorResult]:
    return [r for r in report.results if r.by_step and not r.name.startswith("ragged ")]


def _kind_of(key: str) -> str:
    """What is carried: 3.mlstm.C is mlstm.C."""
    return key.partition(".")[2] or key


def _in_rule(errors: Sequence[float] | Floats, allowed: float) -> Floats:
    """Errors in units of the rule, none so small or large that it cannot be drawn."""
    scaled = np.asarray(errors, float) / (allowed if 0 < allowed < math.inf else 1.0)
    return np.clip(np.nan_to_num(scaled, nan=1e6, posinf=1e6), _LEAST, 1e6)


def thinned(by_step: StepErrors) -> tuple[Floats, Floats]:
    """Steps and largest errors, as many as can be seen."""
    steps, errors = np.asarray(by_step.steps), np.asarray(by_step.largest)
    if len(steps) <= _MOST_POINTS:
        return steps, errors
    starts = np.linspace(0, len(steps), _MOST_POINTS, endpoint=False).astype(int)
    return steps[starts], np.maximum.reduceat(errors, starts)
