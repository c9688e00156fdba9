"""Everyone who took part is timed by the same calls, and who is not says why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.model_cases import BY_ID, Library
from tests.report.reports import report_of
from tests.validation.gathered import gathered
from xlstm_export.lowering.options import LoweringOptions, make_options
from xlstm_export.validation.checks.plan import Plan
from xlstm_export.validation.speed import Speeds, measure_speed

HALF = LoweringOptions(dtype="float16")
PLAN = Plan("fast", 0, {})


def _speeds(library: Library, name: str, options: LoweringOptions, upstream: bool) -> Speeds:
    case = BY_ID[name]
    everyone = gathered(library, case, options, upstream)
    other = library.bundle(case, HALF) if options != HALF else None
    return measure_speed(everyone, PLAN, other)


@pytest.fixture(scope="module")
def speeds(library: Library) -> Speeds:
    return _speeds(library, "hf-plain", LoweringOptions(), True)


def test_everyone_is_timed_on_steps_and_on_a_call(speeds: Speeds) -> None:
    assert [speed.who for speed in speeds.measured] == [
        "this bundle", "stock ONNX Runtime", "the other bundle", "upstream, as compared",
        "PyTorch, our own model",
    ]  # fmt: skip
    assert speeds.missing == ()
    for speed in speeds.measured:
        assert speed.step is not None
        assert speed.step > 0
        assert speed.call > 0
        assert 1 <= speed.turns <= 5
    names = [speed.name for speed in speeds.measured]
    assert "float16" in names[2]
    assert "transformers" in names[3]


def test_what_is_emulated_is_not_timed(library: Library) -> None:
    found = _speeds(library, "stack-mixed", LoweringOptions(dtype="bfloat16"), False)
    assert [s.who for s in found.measured] == ["the other bundle", "PyTorch, our own model"]
    assert found.missing == (
        "this bundle: bfloat16 is emulated here", "stock ONNX Runtime: bfloat16 is emulated here"
    )  # fmt: skip


def test_weights_in_few_bits_run_as_they_are(library: Library) -> None:
    found = _speeds(library, "stack-mixed", make_options(weight_format="int8"), False)
    assert found.measured[0].who == "this bundle"


def test_a_model_without_sequences_has_no_step(library: Library) -> None:
    found = _speeds(library, "vil-two", HALF, False)
    assert {speed.step for speed in found.measured} == {None}
    assert found.call == "one call, one row"
    page = replace(report_of("validated"), speeds=found).to_html()
    assert "one call, one row, ms" in page


def test_the_documents_show_them_with_a_caution(speeds: Speeds) -> None:
    report = replace(report_of("validated"), speeds=speeds)
    page, text = report.to_html(), report.to_markdown()
    for words in ("Speed, side by side", "stock ONNX Runtime", "no benchmark"):
        assert words in page
    assert 'aria-label="Milliseconds of everyone: this bundle' in page
    assert "| the other bundle | " in text
