"""An interrupt ends a comparison wherever it comes: what was compared is told, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.validation import tally
from xlstm_export.validation import validate as validation

STACK = BY_ID["stack-mixed"]


def _interrupt_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the call of the bundle after so many."""
    run, left = OrtSession.run, iter(range(calls))

    def interrupted(session: OrtSession, *given: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return run(session, *given, **options)

    monkeypatch.setattr(OrtSession, "run", interrupted)


def _validate(library: Library, bundle: Path) -> xe.Report:
    return xe.validate(bundle, library.source(STACK).path, upstream=False, threads=1)


def test_the_first_comparison_is_told_as_far_as_it_came(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = library.bundle(STACK)
    _interrupt_after(4, monkeypatch)
    report = _validate(library, bundle)
    assert (report.verdict, report.complete, report.ok) == ("unfinished", False, False)
    logits = report.results[0]
    assert logits.by_step is not None
    assert logits.by_step.steps == tuple(range(1, 11))  # calls of 7, 1, 1, 1
    assert len(report.results) > len(xe.open(bundle).manifest.states)
    assert report.checks == ()
    text = report.to_markdown()
    assert text.startswith("# Validation: unfinished, incomplete")
    assert "Nothing is known of this bundle yet" in text
    assert "validated" not in text
    assert "Nothing is known" in report.to_html()


def test_before_anything_is_compared_there_is_nothing_to_tell(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupt_after(0, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        _validate(library, library.bundle(STACK))


def test_what_follows_the_rollout_is_part_of_the_comparison(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(validation, "repeated_operators", interrupted)
    report = _validate(library, library.bundle(STACK))
    assert report.verdict == "unfinished"
    assert report.results[0].by_step is not None
    assert len(report.results[0].by_step.steps) > 100


def test_one_broken_sample_of_three_is_no_verdict() -> None:
    from tests.validation.test_validate import result_of

    def sample(seed: int) -> list[Any]:
        if seed:
            raise KeyboardInterrupt
        return [result_of(9.0)]

    with pytest.raises(tally.Interrupted) as stop:
        tally.middle_of_samples(sample, 0, [])
    assert [r.judgement.ok for r in stop.value.results] == [False]


def test_the_other_bundle_and_the_speed_are_left_out(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(validation, "measure_speed", interrupted)
    report = _validate(library, library.bundle(STACK))
    assert (report.verdict, report.complete) == ("self-consistent", False)
    assert report.speeds is None
    assert report.checks
