"""The page of a report: whole, alone, and readable by whoever reads it."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.report.reports import report_of
from xlstm_export.validation.measures.forecast import (
    ForecastExample,
    ForecastMeasures,
    Score,
)
from xlstm_export.validation.measures.tensor import StepErrors, TensorTally
from xlstm_export.validation.result import Check, Continuation, Location, Report
from xlstm_export.validation.tally import TensorResult
from xlstm_export.validation.tolerance import Judgement

VOID = {"meta", "link", "br", "hr", "img", "input"}


class _Page(HTMLParser):
    """Elements with their attributes; open ones must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _result(name: str, kind: str, steps: int, is_sequence: bool = False) -> TensorResult:
    random = np.random.default_rng(len(name))
    tally = TensorTally(is_sequence)
    exact = random.standard_normal((2, 3, 5))
    for step in range(1, steps + 1):
        tally.add(exact + 1e-7 * random.standard_normal(exact.shape), exact, 3 * step)
    judgement = Judgement(3e-7, 1e-6, 1e-7, 1e-6)
    return TensorResult(
        name, kind, judgement, 3.0, (1e-7,) * steps, measures=tally.measures(),
        by_step=tally.steps(), histogram=tally.histogram(1e-6),
    )  # fmt: skip


def _full(layers: int = 3, steps: int = 5) -> Report:
    """A failed report that has something of everything."""
    states = [
        _result(f"{layer}.mlstm.{letter}", "state", steps)
        for layer in range(layers)
        for letter in "Cnm"
    ]
    nan = replace(states[0], finite=False, judgement=Judgement(np.inf, 1, np.inf, 1))
    example = ForecastExample((1.0, 2.0), (2.0,), ((1.0, 2, 3),) * 4, ((1.0, 2, 3.1),) * 4)
    score = Score(0.2, 0.8)
    quantiles = replace(
        _result("quantiles", "output", steps),
        forecast=ForecastMeasures(0.1, 0.01, 4, (0.1, 0.9), score, score, example),
    )
    return replace(
        report_of("failed", _result("logits", "output", steps, True), quantiles, nan, *states[1:]),
        checks=(
            Check("length", "passed", "holds", {"bundle": ((1, 2.0), (9, 1.5))}),
            Check("padding", "failed", "a row <b>alone</b> differs"),
            Check("drift", "skipped", "takes the full budget"),
        ),
        location=Location("layers.1.mlstm", "XlstmMLSTM", "h", 1.0, 1e-6, "gates swapped", ("x",)),
        continuations=(Continuation("Once", " upon a", " upon the", 3, 2),),
        machine={"processor": "one"},
        command="xlstm-export validate out --reference checkpoint",
        complete=False,
    )


@pytest.fixture(scope="module")
def page() -> _Page:
    return _Page(_full().to_html())


def test_the_verdict_comes_first_then_one_plain_sentence(page: _Page) -> None:
    start = page.text.index("✗ failed , incomplete")
    sentence = "Do not use this bundle: its numbers are not those of the PyTorch model."
    assert start < page.text.index(sentence) < page.text.index("What was compared with what")
    assert "It goes wrong in layers.1.mlstm." in page.text


def test_every_part_is_there(page: _Page) -> None:
    for words in (
        "gates swapped", "takes the full budget", "upon the", "the first 2 are the same",
        "xlstm-export validate out --reference checkpoint", "ab" * 32, "NaN or infinity",
        "observations in the band", "processor", "upstream 1.0, kernels native",
    ):  # fmt: skip
        assert words in page.text, words


def test_it_needs_no_network_and_no_script(page: _Page) -> None:
    assert page.all("script") == []
    for _, attributes in page.found:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:")), target
    assert not re.search(r"url\((?!#)", _full().to_html())


def test_a_screen_reader_finds_its_way(page: _Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert len(page.all("svg")) == len(page.all("figcaption")) == 5
    assert all("scope" in th for th in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) >= 3
    assert all(r["aria-label"] and r["tabindex"] == "0" for r in page.all("div") if "role" in r)
    ids = [a["id"] for _, a in page.found if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in page.all("a")} <= {f"#{name}" for name in ids}


def test_colours_are_the_pages_so_that_dark_is_dark(page: _Page) -> None:
    styles = " ".join(str(a.get("style")) for tag, a in page.found if tag in ("path", "text"))
    assert "var(--ink)" in styles
    assert "var(--first)" in styles
    assert not re.search(r"#0[1-8]0[1-8]0[1-8]", styles)


def test_names_are_text_and_never_markup() -> None:
    report = replace(report_of("validated"), bundle="<script>x</script>", notes=("<i>&",))
    text = report.to_html()
    assert "<script>" not in text
    assert "&lt;script&gt;x" in text
    assert "<i>" not in text


def test_many_layers_stay_within_two_megabytes() -> None:
    report = _full(layers=32, steps=60)
    assert len(report.to_html()) < 2_000_000


def test_without_matplotlib_the_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = _Page(_full().to_html())
    assert page.all("svg") == []
    assert "No figures: matplotlib is not installed ( pip install 'matplotlib>=3.7' )" in page.text


def test_a_long_rollout_is_drawn_by_its_largest_errors() -> None:
    steps = tuple(range(1, 16385))
    errors = tuple(1e-7 if step != 9000 else 1e-6 for step in steps)
    result = replace(
        _result("logits", "output", 2), by_step=StepErrors(steps, errors, errors, errors)
    )
    text = report_of("validated", result).to_html()
    assert len(text) < 200_000
    assert "9000" in _Page(text).text
