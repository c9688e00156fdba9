"""A validation report as JUnit XML: what a build server shows of tests."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from xlstm_export.output import write_text
from xlstm_export.validation.result import Report
from xlstm_export.validation.tally import ratio

_INTERRUPTED = "and interrupted before all was done: validate again"


def to_junit(report: Report) -> str:
    """The verdict, every tensor and every check as a test case of one suite.

    A verdict that is no more than what was done before an interrupt is an error.
    """
    results, checks = report.results, report.checks
    is_failed = report.verdict == "failed"
    failures = sum(not r.judgement.ok for r in results) + sum(not c.ok for c in checks) + is_failed
    skipped = sum(check.outcome == "skipped" for check in checks)
    suite = ET.Element(
        "testsuite", name="xlstm-export validate", tests=str(1 + len(results) + len(checks)),
        failures=str(failures), skipped=str(skipped),
        errors=str(int(not report.complete and not is_failed)),
    )  # fmt: skip
    case = ET.SubElement(suite, "testcase", classname="report", name="verdict")
    if is_failed:
        ET.SubElement(case, "failure", message=report.explanation)
    elif not report.complete:
        ET.SubElement(case, "error", message=f"{report.verdict}, {_INTERRUPTED}")
    for result in results:
        case = ET.SubElement(suite, "testcase", classname=f"tensor.{result.kind}", name=result.name)
        if not result.judgement.ok:
            shown = f"{ratio(result.judgement):.3g} times what the rule allows"
            words = shown if result.finite else "NaN or infinity"
            ET.SubElement(case, "failure", message=words)
    for check in checks:
        case = ET.SubElement(suite, "testcase", classname="check", name=check.name)
        if check.outcome == "skipped":
            ET.SubElement(case, "skipped", message=check.reason)
        elif not check.ok:
            ET.SubElement(case, "failure", message=check.reason)
    ET.indent(suite)
    text = ET.tostring(suite, encoding="unicode")
    return f"<?xml version='1.0' encoding='utf-8'?>\n{text}\n"


def write_junit(report: Report, path: str | Path) -> Path:
    """Write ``report`` as JUnit XML to ``path``, which is returned. Raises TargetError."""
    write_text(Path(path), to_junit(report))
    return Path(path)
