"""A validation report for people."""

from __future__ import annotations

from collections.abc import Iterable

from xlstm_export.validation.result import Report
from xlstm_export.validation.tally import TensorResult, ratio
from xlstm_export.validation.tolerance import FACTOR, ULPS


def to_markdown(report: Report) -> str:
    """The report for people: verdict first, who computed, then all tensors, as ``in_order``."""
    lines = [
        f"# Validation: {report.verdict}",
        "",
        report.explanation,
        "",
        f"- bundle: `{report.bundle}`, sha256 {report.bundle_sha256}, run by {report.subject}",
        *(f"- operators `{op}`: {by}" for op, by in report.subject_ops.items()),
        f"- source: `{report.source}`"
        + ("" if report.source_matches_bundle else " (NOT the weights this bundle was made from)"),
        f"- reference: {report.reference}",
        f"- baselines: {'; '.join(report.baselines)}",
        f"- rollout: batch {report.batch}, {report.fed}, seed {report.seed}",
        f"- rule: error at most {FACTOR:g} x the baselines' own error + {ULPS:g} ulp",
        *(f"- {r.name}: {r.best_token.words}" for r in report.results if r.best_token),
        *(f"- {note}" for note in report.notes),
    ]
    if report.reader_distance is not None:
        lines.append(
            f"- reader: our float64 model and upstream's differ by {report.reader_distance:.1e} "
            "(relative)"
        )
    lines += ["", *_table(report.in_order()), "", "Versions: " + _versions(report.versions), ""]
    return "\n".join(lines)


def _table(results: Iterable[TensorResult]) -> list[str]:
    rows = [
        "| | tensor | max error | allowed | rms error | allowed | of allowance |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        j = result.judgement
        rows.append(
            f"| {'✓' if j.ok else '✗'} | `{result.name}` | {j.max_error:.2e} | "
            f"{j.max_allowed:.2e} | {j.rms_error:.2e} | {j.rms_allowed:.2e} | "
            f"{100 * ratio(j):.0f} % |"
        )
    return rows


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
