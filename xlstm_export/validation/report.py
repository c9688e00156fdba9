"""The validation report: what was compared with what, the numbers, and one verdict."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from xlstm_export.validation.compare import BestToken, TensorResult, share
from xlstm_export.validation.tolerance import FACTOR, ULPS

Verdict = Literal["validated", "self-consistent", "failed"]

_EXPLANATION = {
    "validated": (
        "Every output and every state is within the tolerance rule of the upstream module."
    ),
    "self-consistent": (
        "Every output and every state is within the tolerance rule of this toolkit's own "
        "float64 reference. The upstream package took no part: an error in reading the "
        "checkpoint cannot be seen this way. For a validation install it: "
        "pip install 'xlstm-export[validate]'."
    ),
}


@dataclass(frozen=True)
class Report:
    """Everything ``reports/validation.json`` holds."""

    verdict: Verdict
    bundle: str
    bundle_sha256: str
    """Of the graph and its data, as in the records of engines."""
    source: str
    source_matches_bundle: bool
    subject: str
    subject_ops: dict[str, str]
    reference: str
    yardsticks: tuple[str, str]
    reader_distance: float | None
    """Relative distance of our float64 model from upstream's, None without upstream."""
    batch: int
    calls: tuple[int, ...]
    seed: int
    notes: tuple[str, ...]
    versions: dict[str, str]
    results: tuple[TensorResult, ...]

    @property
    def ok(self) -> bool:
        """False only when the verdict is ``failed``."""
        return self.verdict != "failed"


def decide(results: Iterable[TensorResult], against_upstream: bool) -> Verdict:
    """The verdict of a comparison; ``validated`` needs the upstream module as the reference."""
    if not all(result.judgement.ok for result in results):
        return "failed"
    return "validated" if against_upstream else "self-consistent"


def explain(report: Report) -> str:
    """What the verdict says; of a failure, how many tensors are outside the rule."""
    if report.ok:
        return _EXPLANATION[report.verdict]
    count = len(report.results)
    outside = sum(not result.judgement.ok for result in report.results)
    unbounded = sum(not result.finite for result in report.results)
    nan = f"; the bundle computed NaN or infinity in {unbounded}" if unbounded else ""
    return f"{outside} of {count} tensors are outside the tolerance rule{nan}."


def in_order(results: Iterable[TensorResult]) -> list[TensorResult]:
    """What broke the rule first, then the model's outputs, then the rest; the worst ahead."""
    return sorted(results, key=lambda r: (r.judgement.ok, r.kind != "output", -share(r.judgement)))


def in_words(best: BestToken) -> str:
    """The user's own measure of a language model, beside PyTorch's."""
    return (
        f"the likeliest token is the exact one at {100 * best.subject:.1f} % of {best.positions} "
        f"positions (the torch reference in this precision: {100 * best.torch:.1f} %)"
    )


def to_json(report: Report, report_error: str = "") -> str:
    """The report as JSON; every result with its errors, allowances, and ``ok``.

    ``report_error``: why it could not be written to a file.
    """
    content: dict[str, Any] = dataclasses.asdict(report)
    content["explanation"] = explain(report)
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


def to_markdown(report: Report) -> str:
    """The report for people: verdict first, who computed, then all tensors, as ``in_order``."""
    lines = [
        f"# Validation: {report.verdict}",
        "",
        explain(report),
        "",
        f"- bundle: `{report.bundle}`, sha256 {report.bundle_sha256}, run by {report.subject}",
        *(f"- operators `{op}`: {by}" for op, by in report.subject_ops.items()),
        f"- source: `{report.source}`"
        + ("" if report.source_matches_bundle else " (NOT the weights this bundle was made from)"),
        f"- reference: {report.reference}",
        f"- yardsticks: {'; '.join(report.yardsticks)}",
        f"- rollout: batch {report.batch}, calls of {', '.join(map(str, report.calls))} steps "
        f"with carried states, seed {report.seed}",
        f"- rule: error at most {FACTOR:g} x the yardsticks' own error + {ULPS:g} ulp",
        *(f"- {r.name}: {in_words(r.best_token)}" for r in report.results if r.best_token),
        *(f"- {note}" for note in report.notes),
    ]
    if report.reader_distance is not None:
        lines.append(
            f"- reader: our float64 model and upstream's differ by {report.reader_distance:.1e} "
            "(relative)"
        )
    lines += ["", *_table(report.results), "", "Versions: " + _versions(report.versions), ""]
    return "\n".join(lines)


def _table(results: Iterable[TensorResult]) -> list[str]:
    rows = [
        "| | tensor | max error | allowed | rms error | allowed | of allowance |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in in_order(results):
        j = result.judgement
        rows.append(
            f"| {'✓' if j.ok else '✗'} | `{result.name}` | {j.max_error:.2e} | "
            f"{j.max_allowed:.2e} | {j.rms_error:.2e} | {j.rms_allowed:.2e} | "
            f"{100 * share(j):.0f} % |"
        )
    return rows


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
