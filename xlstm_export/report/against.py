"""Two bundles in a report: the errors of both over time, and their table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xlstm_export.report.figures import Shown, thinned
from xlstm_export.report.numbers import short
from xlstm_export.report.summary import percent
from xlstm_export.report.svg import FIRST, INK, SECOND, decades, draw
from xlstm_export.validation.against import Against

_LEAST = 1e-18
"""Errors of zero are drawn as this one."""


def against_figure(against: Against | None) -> list[Shown]:
    """The differences of the first output at each step; none where steps are not counted."""
    if against is None:
        return []
    (first, *_) = (tensor for tensor in against.tensors if tensor.kind == "output")
    gaps = (
        ("bundle from float64", first.bundle, FIRST, "-"),
        ("other from float64", first.other, SECOND, (0, (3, 2))),
        ("apart", first.apart, INK, ":"),
    )
    drawn = [
        (name, *thinned(gap.by_step), colour, line)
        for name, gap, colour, line in gaps
        if gap is not None and gap.by_step is not None
    ]
    if not drawn or len(drawn[0][1]) < 2:
        return []

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        for name, steps, sizes, colour, line in drawn:
            shown = np.log10(np.clip(np.nan_to_num(sizes, posinf=1e6), _LEAST, 1e6))
            axes.plot(steps, shown, color=colour, linestyle=line, linewidth=1.1, label=name)
        low, high = axes.get_ylim()
        decades(axes.yaxis, int(np.floor(low)), int(np.ceil(high)), {})
        axes.set_xlabel("step since the states were zero")
        axes.set_ylabel(f"largest error of {first.name}")
        axes.legend(loc="best")

    title = f"{first.name} of both bundles: largest differences by step"
    caption = (
        f"The largest difference in {first.name} at each step. Where both lines from float64 lie "
        "far apart, the higher one is the less exact bundle."
    )
    return [Shown(draw("against", title, 2.4, plot), caption)]


def against_lines(against: Against | None) -> Iterator[str]:
    """A section of Markdown; nothing without another bundle."""
    if against is None:
        return
    yield from (f"## Against `{against.bundle}`", "", f"{against.words}.", "")
    yield f"- their difference: {against.reason}"
    digest = against.bundle_sha256
    yield f"- other bundle: {against.dtype}, sha256 {digest}, run by {against.subject}"
    yield from (f"- operators `{op}`: {by}" for op, by in against.subject_ops.items())
    if against.exact:
        yield f"- beside both: {against.exact}"
    if against.left_out:
        yield f"- left out, states that only one of them has: {', '.join(against.left_out)}"
    yield from (f"- the other bundle: {note}" for note in against.notes)
    for tensor in against.tensors:
        if tensor.apart.language is not None:
            measures = tensor.apart.language
            yield (
                f"- {tensor.name}: the likeliest token is the same at {percent(measures.top1)} of "
                f"{measures.positions} positions, of the five likeliest {percent(measures.top5)} "
                f"are shared; KL divergence {short(measures.kl_mean)} nats in the mean"
            )
    yield from ("", *_table(against), "")


def _table(against: Against) -> Iterator[str]:
    yield (
        "| tensor | max | allowed | mean | rms | relative | 1 - cosine | SNR, dB "
        "| bundle from float64, rms | other from float64, rms |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for t in against.tensors:
        apart, m = t.apart, t.apart.measures
        largest = short(apart.largest) if t.finite else "NaN or infinity"
        numbers = (
            largest, short(t.allowed), short(m.mean_error), short(apart.rms),
            short(m.relative_error), short(1 - m.cosine, 1), short(m.snr_db),
            *(short(gap.rms) if gap else "–" for gap in (t.bundle, t.other)),
        )  # fmt: skip
        yield f"| `{t.name}` | {' | '.join(numbers)} |"
