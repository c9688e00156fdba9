"""A validation report for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from xlstm_export.report.against import against_lines
from xlstm_export.report.numbers import short
from xlstm_export.report.speed import speed_lines
from xlstm_export.report.summary import headline, percent
from xlstm_export.validation.result import Check, Report
from xlstm_export.validation.tally import TensorResult, ratio
from xlstm_export.validation.tolerance import FACTOR, ULPS


def to_markdown(report: Report) -> str:
    """The report for people: verdict first, who computed, then all tensors, as ``in_order``."""
    lines = [
        f"# Validation: {report.verdict}{'' if report.complete else ', incomplete'}",
        "",
        f"{headline(report)} {report.explanation}",
        "",
        *_where(report),
        f"- bundle: `{report.bundle}`, sha256 {report.bundle_sha256}, run by {report.subject}",
        *(f"- operators `{op}`: {by}" for op, by in report.subject_ops.items()),
        f"- source: `{report.source}`"
        + ("" if report.source_matches_bundle else " (NOT the weights this bundle was made from)"),
        f"- reference: {report.reference}",
        f"- mode: {report.mode}",
        f"- baselines: {'; '.join(report.baselines)}",
        f"- rollout: batch {report.batch}, {report.fed}, seed {report.seed}",
        f"- rule: error at most {FACTOR:g} x the baselines' own error + {ULPS:g} ulp",
        *(f"- {r.name}: {r.best_token.words}" for r in report.results if r.best_token),
        *_meanings(report.results),
        *(f"- {note}" for note in report.notes),
    ]
    if report.reader_distance is not None:
        lines.append(
            f"- reader: our float64 model and upstream's differ by {report.reader_distance:.1e} "
            "(relative)"
        )
    lines += ["", *_checks(report.checks), *_table(report.in_order()), ""]
    lines += [*against_lines(report.against), *speed_lines(report.speeds)]
    if report.command:
        lines += [f"Made by `{report.command}`", ""]
    if report.machine:
        lines += [f"Machine: {_versions(report.machine)}", ""]
    return "\n".join([*lines, "Versions: " + _versions(report.versions), ""])


def _where(report: Report) -> list[str]:
    if report.location is None:
        return []
    also = [f"- also wrong: {other}" for other in report.location.others]
    return [f"**{report.location.words}**", "", f"- likely: {report.location.cause}", *also, ""]


def _meanings(results: Iterable[TensorResult]) -> Iterator[str]:
    """What errors mean to who uses the model."""
    for r in results:
        if r.language:
            yield (
                f"- {r.name}: KL divergence {short(r.language.kl_mean)} nats in the mean, "
                f"{short(r.language.kl_largest)} at most; of the five likeliest tokens "
                f"{percent(r.language.top5)} are shared"
            )
        if r.forecast:
            yield (
                f"- {r.name}: largest error {short(r.forecast.spread_error)} of the series' spread"
            )
        if r.unbounded:
            yield f"- {r.name}: NaN or infinity, {r.unbounded.words}"


def _checks(checks: Sequence[Check]) -> list[str]:
    if not checks:
        return []
    rows = [f"| {check.name} | {check.outcome} | {check.reason} |" for check in checks]
    return ["| check | outcome | seen |", "|---|---|---|", *rows, ""]


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
