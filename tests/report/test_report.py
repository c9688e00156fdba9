"""Verdicts and the documents that carry them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.reports import report_of
from xlstm_export.report.json import to_json
from xlstm_export.report.markdown import to_markdown
from xlstm_export.report.write import write_report
from xlstm_export.validation.result import Verdict, decide
from xlstm_export.validation.tally import BestToken, TensorResult
from xlstm_export.validation.tolerance import Judgement

GOOD = TensorResult("logits", "output", Judgement(1e-6, 2e-6, 1e-7, 2e-7), 3.0, (1e-6, 1e-7))
BAD = TensorResult("0.mlstm.C", "state", Judgement(1e-3, 2e-6, 1e-4, 2e-7), 3.0, (1e-3, 1e-7))


@pytest.mark.parametrize(
    ("results", "against_upstream", "verdict"),
    [
        ((GOOD,), True, "validated"),
        ((GOOD,), False, "self-consistent"),
        ((GOOD, BAD), True, "failed"),
        ((GOOD, BAD), False, "failed"),
    ],
)
def test_verdict(
    results: tuple[TensorResult, ...], against_upstream: bool, verdict: Verdict
) -> None:
    assert decide(results, against_upstream) == verdict


def test_json_holds_every_number_and_verdict() -> None:
    content = json.loads(to_json(report_of("failed", GOOD, BAD)))
    assert content["verdict"] == "failed"
    assert [entry["ok"] for entry in content["results"]] == [True, False]
    assert content["results"][1]["judgement"]["max_error"] == 1e-3
    assert content["results"][1]["errors_by_call"] == [1e-3, 1e-7]
    assert content["reference"] == "upstream 1.0, kernels native"
    assert content["bundle_sha256"] == "ab" * 32
    assert content["manifest_sha256"] == "cd" * 32
    assert content["baselines"] == ["recurrent", "chunkwise"]
    assert "report_error" not in content
    unwritten = json.loads(to_json(report_of("failed", GOOD, BAD), "no space"))
    assert unwritten == {**content, "report_error": "no space"}


def test_outputs_lead_unless_something_broke_the_rule() -> None:
    state = replace(BAD, judgement=Judgement(1.9e-6, 2e-6, 1e-7, 2e-7))
    operator = replace(state, name="XlstmMLSTM#0 C_out", kind="operator")
    assert report_of("validated", operator, state, GOOD).in_order()[0] == GOOD
    assert report_of("failed", operator, state, GOOD, BAD).in_order()[:2] == [BAD, GOOD]


def test_likeliest_tokens_are_counted() -> None:
    logits = replace(GOOD, best_token=BestToken(400, 0.9975, 0.98))
    text = to_markdown(report_of("validated", logits, BAD))
    line = "logits: the likeliest entry is the exact one at 99.8 % of 400 positions"
    assert f"- {line} (the torch baseline in this precision: 98.0 %)" in text
    assert json.loads(to_json(report_of("validated", logits)))["results"][0]["best_token"] == {
        "positions": 400, "subject": 0.9975, "torch": 0.98
    }  # fmt: skip


def test_markdown_leads_with_the_verdict_and_the_worst_tensor() -> None:
    text = to_markdown(report_of("failed", GOOD, BAD))
    assert text.startswith("# Validation: failed")
    assert text.index("0.mlstm.C") < text.index("`logits`")
    assert "✗" in text
    assert "upstream 1.0, kernels native" in text
    assert f"`out`, sha256 {'ab' * 32}" in text


def test_a_failure_is_counted() -> None:
    nan = TensorResult("x", "state", Judgement(math.inf, 1, math.inf, 1), 3.0, (math.inf,), False)
    assert report_of("failed", GOOD, BAD).explanation.startswith("1 of 2 tensors are outside")
    assert "NaN" not in report_of("failed", GOOD, BAD).explanation
    counted = report_of("failed", GOOD, BAD, nan, nan).explanation
    assert counted == (
        "3 of 4 tensors are outside the tolerance rule; the bundle computed NaN or infinity in 2."
    )
    assert counted in to_markdown(report_of("failed", GOOD, BAD, nan, nan))
    assert "outside" not in report_of("validated", GOOD).explanation


def test_self_consistent_says_what_it_cannot_see() -> None:
    text = to_markdown(report_of("self-consistent", GOOD))
    assert "reading the checkpoint cannot be seen" in " ".join(text.split())
    assert "validated" not in text


@pytest.mark.parametrize(
    ("engine", "name"),
    [("", "validation"), ("sm89", "validation-sm89"), ("a/b/sm89.engine", "validation-sm89")],
)
def test_all_documents_are_written(tmp_path: Path, engine: str, name: str) -> None:
    report = replace(report_of("validated", GOOD), engine=engine)
    path = write_report(report, tmp_path / "reports")
    assert path == tmp_path / "reports" / f"{name}.html"
    assert path.read_text(encoding="utf-8") == report.to_html()
    assert path.with_suffix(".md").read_text(encoding="utf-8") == to_markdown(report)
    assert path.with_suffix(".json").read_text(encoding="utf-8") == to_json(report)


def test_infinity_is_null() -> None:
    """JSON has no word for it."""
    nan = TensorResult("x", "state", Judgement(math.inf, 1, math.nan, 1), 3.0, (math.inf,), False)
    (entry,) = json.loads(to_json(report_of("failed", nan)))["results"]
    assert entry["judgement"]["max_error"] is entry["judgement"]["rms_error"] is None
    assert entry["errors_by_call"] == [None]
