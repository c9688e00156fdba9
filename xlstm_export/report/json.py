"""A validation report for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from xlstm_export.validation.result import Report
from xlstm_export.validation.tolerance import FACTOR, ULPS


def to_json(report: Report, report_error: str = "") -> str:
    """``report`` as JSON text; every result with its errors, allowances, and ``ok``.

    ``report_error``: why it could not be written to a file.
    """
    content: dict[str, Any] = dataclasses.asdict(report)
    content["explanation"] = report.explanation
    if report_error:
        content["report_error"] = report_error
    content["rule"] = {"factor": FACTOR, "ulps": ULPS}
    for entry, result in zip(content["results"], report.results, strict=True):
        entry["ok"] = result.judgement.ok
    return json.dumps(_finite(content), indent=2, default=str, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """``value`` with null for numbers that JSON has no word for: an infinite error."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value
