"""A validation report as one page that needs nothing else: no network, no script."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError
from xlstm_export.report.against import against_figure
from xlstm_export.report.figures import Shown, check_figure, figures, forecast_figure
from xlstm_export.report.numbers import short, steps_words
from xlstm_export.report.speed import speed_figure
from xlstm_export.report.summary import evidence, headline, percent
from xlstm_export.validation.result import Report
from xlstm_export.validation.tally import ratio
from xlstm_export.validation.tolerance import FACTOR, ULPS

if TYPE_CHECKING:
    from jinja2 import Template

_FIRST = 12
"""So many tensors are shown at once; the rest unfolds."""


def to_html(report: Report) -> str:
    """``report`` as a page. Without matplotlib it says so where the figures would be.

    Raises BackendUnavailableError where jinja2 is missing, which torch brings along.
    """
    shown, missing = _drawn(report)
    results = report.in_order()
    return _template().render(
        report=report, headline=headline(report), evidence=evidence(report), figures=shown,
        missing=missing, first=results[:_FIRST], rest=results[_FIRST:], ratio=ratio,
        rule={"factor": f"{FACTOR:g}", "ulps": f"{ULPS:g}"},
    )  # fmt: skip


@functools.cache
def _template() -> Template:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise BackendUnavailableError(
            f"the page of a report needs jinja2: {install('jinja2')}"
        ) from error
    pages = Environment(
        loader=PackageLoader("xlstm_export.report", "."), undefined=StrictUndefined,
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    pages.filters.update(short=short, percent=percent, steps=steps_words)
    return pages.get_template("validation.html.j2")


def _drawn(report: Report) -> tuple[dict[str, list[Shown]], str]:
    """The figures by section, and what to install where there are none."""
    sections: dict[str, list[Shown]] = {
        "errors": [], "against": [], "forecasts": [], "checks": [], "speed": [],
    }  # fmt: skip
    try:
        sections["errors"] = figures(report)
        sections["against"] = against_figure(report.against)
        sections["speed"] = speed_figure(report.speeds)
        sections["forecasts"] = [
            forecast_figure(r.forecast.example, str(number))
            for number, r in enumerate(report.results)
            if r.forecast and r.forecast.example
        ]
        sections["checks"] = [
            check_figure(check, number)
            for number, check in enumerate(report.checks)
            if any(check.series.values())
        ]
    except ImportError:
        return {name: [] for name in sections}, install("matplotlib")
    return sections, ""
