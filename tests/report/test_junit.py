"""JUnit XML: a case for each tensor and check, failures where the rule is broken."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import xlstm_export as xe
from tests.report.reports import report_of
from xlstm_export.report.junit import to_junit
from xlstm_export.validation.result import Check
from xlstm_export.validation.tally import TensorResult
from xlstm_export.validation.tolerance import Judgement

GOOD = TensorResult("logits", "output", Judgement(1e-6, 2e-6, 1e-7, 2e-7), 3.0, (1e-6,))
BAD = TensorResult("0.mlstm.C", "state", Judgement(6e-6, 2e-6, 1e-7, 2e-7), 3.0, (1e-3,))


def test_cases_failures_and_skips(tmp_path: Path) -> None:
    checks = (Check("a", "passed", ""), Check("b", "failed", "<why>"), Check("c", "skipped", "no"))
    report = replace(report_of("failed", GOOD, BAD), checks=checks)
    suite = ET.parse(xe.write_junit(report, tmp_path / "junit.xml")).getroot()
    assert suite.attrib == {
        "name": "xlstm-export validate", "tests": "6", "failures": "3", "skipped": "1",
        "errors": "0",
    }  # fmt: skip
    failed = {case.get("name"): case.find("failure") for case in suite}
    assert failed["logits"] is failed["a"] is None
    assert failed["0.mlstm.C"].get("message") == "3 times what the rule allows"  # type: ignore[union-attr]
    assert failed["b"].get("message") == "<why>"  # type: ignore[union-attr]
    assert failed["verdict"].get("message") == report.explanation  # type: ignore[union-attr]
    assert suite.find("testcase[@name='c']/skipped") is not None


def test_an_interrupted_validation_is_not_green() -> None:
    for verdict in ("validated", "unfinished"):
        report = replace(report_of(verdict, GOOD), complete=False)  # type: ignore[arg-type]
        suite = ET.fromstring(to_junit(report).partition("\n")[2])
        assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
        error = suite.find("testcase[@name='verdict']/error")
        assert error is not None
        assert error.get("message", "").startswith(f"{verdict}, and interrupted")
    whole = ET.fromstring(to_junit(report_of("validated", GOOD)).partition("\n")[2])
    assert (whole.get("errors"), whole.get("failures"), whole.get("tests")) == ("0", "0", "2")
