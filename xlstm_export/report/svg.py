"""matplotlib's SVG as part of a page: its colours are the page's, its text stays text.

matplotlib draws with fixed colours and names. Here each colour stands for a role, which the page's
style sheet fills in, light or dark; names are made unique, so that many figures share a page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

INK, FAINT, BACK = "#010101", "#020202", "#030303"
BAD = "#040404"
FIRST, SECOND = "#050505", "#060606"
_ROLES = {
    INK: "ink", FAINT: "line", BACK: "back", BAD: "bad", FIRST: "first", SECOND: "second",
}  # fmt: skip
"""Colours that stand for variables of the style sheet."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "xlstm-export", "font.size": 8.5,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "axes.titlesize": 8.5,
    "axes.titlelocation": "left", "axes.titley": 1.0,  # a place of its own, or one is searched
    "axes.linewidth": 0.6, "axes.facecolor": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": FAINT, "grid.linewidth": 0.6, "xtick.color": INK, "ytick.color": INK,
    "xtick.minor.visible": False, "legend.frameon": False, "figure.facecolor": "none",
    "savefig.facecolor": "none", "image.interpolation": "nearest",
}  # fmt: skip

WIDTH = 5.0
"""Inches: as wide as a telephone, so that no figure is shrunk until it cannot be read."""


MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 0.55, 0.1, 0.22, 0.42
"""Inches around the axes: fixed, since matplotlib would draw twice to find them."""


def draw(name: str, title: str, height: float, plot: Callable[[Any], None]) -> str:
    """The figure that ``plot`` draws on an empty matplotlib figure, as SVG for a page.

    ``name`` is its own on the page, ``title`` what a screen reader says, ``height`` in inches.
    Raises ImportError where matplotlib is missing.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(figure)
        figure.subplots_adjust(
            MARGIN_LEFT / WIDTH, MARGIN_BOTTOM / height, 1 - MARGIN_RIGHT / WIDTH,
            1 - MARGIN_TOP / height, hspace=0.4,
        )  # fmt: skip
        plot(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(file.getvalue(), name, title)


def decades(axis: Any, first: int, last: int, names: Mapping[int, str]) -> None:
    """Ticks of an axis of decimal logarithms, which are drawn faster than on a scale of them."""
    ticks = range(first, last + 1)
    axis.set_ticks(ticks, [names.get(power, f"1e{power}") for power in ticks])


def _for_page(svg: str, name: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None
    head = f'<svg {size[0]} role="img" aria-label="{escape(title)}">'
    svg = head + svg[svg.index(">") + 1 :]
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r'(id="|url\(#|href="#)(?=[^)"]+)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "inherit", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    for colour, role in _ROLES.items():
        svg = svg.replace(colour, f"var(--{role})")
    # places to a tenth of a pixel: nobody sees more, and the page is half the size
    svg = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda m: _rounded(m[0]), svg)
    return re.sub(r"\n\s*", "\n", svg)


def _rounded(attribute: str) -> str:
    return re.sub(r"(\d+\.\d)\d+", r"\1", attribute)
