"""What a report says to somebody who reads one sentence of it."""

from __future__ import annotations

from xlstm_export.validation.result import Report
from xlstm_export.validation.tally import ratio


def headline(report: Report) -> str:
    """What to do with the bundle, and why, in plain words."""
    if report.verdict == "failed" and _only_the_other_differs(report):
        return (
            "This bundle is within the rule by itself, and the other one computes other numbers: "
            f"{report.against.words if report.against else ''}."
        )
    if report.verdict == "failed":
        where = f" It goes wrong in {report.location.layer}." if report.location else ""
        return f"Do not use this bundle: its numbers are not those of the PyTorch model.{where}"
    if report.verdict == "unfinished":
        return (
            "Nothing is known of this bundle yet: the comparison was interrupted at its beginning. "
            f"So far {_within(report)} tensors are within the rule."
        )
    part = ""
    if not report.complete:
        part = " The comparison was interrupted: what was compared agrees, the rest is unknown."
    if report.verdict == "self-consistent":
        return (
            "This bundle computes what this toolkit reads in the checkpoint; the original PyTorch "
            f"package was not there to be compared with.{part}"
        )
    return f"This bundle computes what the PyTorch model computes.{part}"


def _only_the_other_differs(report: Report) -> bool:
    """Whether nothing failed but the comparison with another bundle."""
    if report.against is None or report.against.ok:
        return False
    failed = [check for check in report.checks if not check.ok]
    return len(failed) == 1 and all(result.judgement.ok for result in report.results)


def evidence(report: Report) -> list[tuple[str, str]]:
    """The few figures that carry the verdict: what each is, and its value."""
    found = [("tensors within the rule", _within(report))]
    if report.results:
        worst = max(ratio(result.judgement) for result in report.results)
        found.append(("largest error, of what rounding explains", percent(worst)))
    if report.checks:
        passed = sum(check.outcome == "passed" for check in report.checks)
        run = sum(check.outcome != "skipped" for check in report.checks)
        found.append(("checks passed", f"{passed} of {run}"))
    for result in report.results:
        if result.language and not result.name.startswith("ragged"):
            found.append(("same likeliest token", percent(result.language.top1)))
            found.append(("KL divergence, mean", f"{result.language.kl_mean:.1e} nats"))
        if result.forecast:
            error = f"{result.forecast.spread_rms:.1e} of the series' spread"
            found.append(("error of the forecast", error))
    return found


def percent(part: float) -> str:
    """A part as people read it; more than ten times the whole as a multiple."""
    return f"{part:.1e} times" if part >= 10 else f"{100 * part:.3g} %"


def _within(report: Report) -> str:
    good = sum(result.judgement.ok for result in report.results)
    return f"{good} of {len(report.results)}"
