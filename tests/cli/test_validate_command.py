"""``validate``: what is said of a failure, and that neither verdict nor report can mislead."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlstm_export as xe
from tests.cli.conftest import Made
from tests.cli.terminal import assert_short_error, run_cli, succeed, succeed_json
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.validation import validate as validation
from xlstm_export.validation.segments import plan


@pytest.fixture
def bundle(made: Made, tmp_path: Path) -> Path:
    """A copy of the bundle ``stack``."""
    return Path(shutil.copytree(made.bundles / "stack", tmp_path / "bundle"))


def garble(bundle: Path) -> None:
    """Random bytes in place of all weights."""
    data = bundle / "model.onnx.data"
    size = data.stat().st_size
    data.write_bytes(np.random.default_rng(0).bytes(size))


@pytest.fixture
def compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first report is that of every later call: how it is told is what is tested."""
    compare, found = xe.validate, []

    def validate(*given: object, **how: object) -> xe.Report:
        found[:] = found or [compare(*given, **how)]  # type: ignore[arg-type]
        return found[0]

    monkeypatch.setattr(xe, "validate", validate)


def test_the_report_names_the_bundle_it_is_about(made: Made, bundle: Path) -> None:
    report = succeed_json("validate", bundle, "--reference", made.checkpoints / "stack")
    content = b"".join((bundle / n).read_bytes() for n in ("model.onnx", "model.onnx.data"))
    assert report["bundle_sha256"] == hashlib.sha256(content).hexdigest()
    assert report["bundle_sha256"] in (bundle / "reports" / "validation.md").read_text()


def test_a_bundle_that_is_replaced_meanwhile_has_no_verdict(
    made: Made, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = validation.compare_rollout

    def replaced(*given: object) -> object:
        results = compare(*given)  # type: ignore[arg-type]
        succeed("export", made.checkpoints / "hf", "-o", bundle, "--overwrite")
        return results

    monkeypatch.setattr(validation, "compare_rollout", replaced)
    outcome = run_cli("validate", bundle, "--reference", made.checkpoints / "stack")
    assert_short_error(outcome, str(bundle), "was replaced while it was compared")
    assert not (bundle / "reports").exists()


@pytest.mark.usefixtures("compared_once")
@pytest.mark.parametrize("is_right", [True, False])
def test_a_report_that_cannot_be_written_hides_no_verdict(
    made: Made, bundle: Path, tmp_path: Path, is_right: bool
) -> None:
    """Not even root writes into a folder that is a file."""
    (bundle / "reports").touch()
    if not is_right:
        garble(bundle)
    verdict, code = ("validated", 0) if is_right else ("failed", 1)
    words = ["validate", bundle, "--reference", made.checkpoints / "stack"]
    outcome = run_cli(*words)
    assert outcome.code == code
    assert outcome.out.startswith(f"verdict: {verdict}\n")
    assert outcome.err.startswith("warning: the report is not written: ")
    assert "name another folder with --report DIR" in outcome.err
    outcome = run_cli(*words, "--json")
    assert outcome.code == code
    content = json.loads(outcome.out)
    assert content["verdict"] == verdict
    assert str(bundle / "reports") in content["report_error"]
    assert content["report_error"] in outcome.err
    outcome = run_cli(*words, "--report", tmp_path / "elsewhere")
    assert (outcome.code, outcome.err) == (code, "")
    assert outcome.out.endswith(f"  report     {tmp_path}/elsewhere/validation.html\n")
    written = json.loads((tmp_path / "elsewhere" / "validation.json").read_text())
    assert written["verdict"] == verdict
    assert "report_error" not in written


@pytest.mark.usefixtures("compared_once")
def test_a_place_for_junit_that_cannot_be_written(made: Made, bundle: Path, tmp_path: Path) -> None:
    """A folder is refused before the work; what fails after it leaves the report."""
    words = ["validate", bundle, "--reference", made.checkpoints / "stack"]
    outcome = run_cli(*words, "--junit", tmp_path)
    assert outcome.code == 2
    assert "--junit" in outcome.err
    assert not (bundle / "reports").exists()
    (tmp_path / "file").touch()
    outcome = run_cli(*words, "--junit", tmp_path / "file" / "junit.xml")
    assert outcome.code == 0
    assert outcome.err.startswith("warning: the JUnit XML is not written: ")
    assert (bundle / "reports" / "validation.json").is_file()
    assert succeed_json("inspect", bundle)["verdict"] == "validated"


@pytest.mark.usefixtures("compared_once")
def test_a_failure_says_how_much_of_the_bundle_is_wrong(made: Made, bundle: Path) -> None:
    garble(bundle)
    words = ["validate", bundle, "--reference", made.checkpoints / "stack"]
    results = json.loads(run_cli(*words, "--json").out)["results"]
    outside = sum(not result["ok"] for result in results)
    unbounded = sum(not result["finite"] for result in results)
    assert outside >= unbounded > 0
    text = run_cli(*words).out
    assert (
        f"  failed     {outside} of {len(results)} tensors are outside the tolerance rule; "
        f"the bundle computed NaN or infinity in {unbounded}; failed checks: one call or many"
    ) in text
    assert "[✗] logits                   NaN or infinity\n" in text
    assert " inf " not in text


def test_another_bundle_beside_it(made: Made, bundle: Path, tmp_path: Path) -> None:
    words = ["validate", bundle, "--reference", made.checkpoints / "stack", "--no-upstream"]
    text = succeed(*words, "--against", made.bundles / "bf16")
    assert f"  against    {made.bundles / 'bf16'}: logits differ by " in text
    assert "told and not judged: one is in float32, the other in bfloat16" in text
    outcome = run_cli(*words, "--against", made.bundles / "bare")
    assert_short_error(outcome, str(made.bundles / "bare"), "cannot be compared")
    outcome = run_cli("validate", bundle, "--module", "a:b", "--against", bundle)
    assert outcome.code == 2
    assert "--module stands in the place of --against" in " ".join(outcome.err.split())


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is answered, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("place", "calls", "verdict"),
    [
        ("compare_rollout", 0, None),
        ("compare_rollout", 4, "unfinished"),
        ("run_checks", 2, "self-consistent"),
    ],
)
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_validation_writes_what_there_is(
    made: Made,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    calls: int,
    verdict: str | None,
) -> None:
    """By a signal, in the first rollout or in the checks; nothing where nothing was compared."""
    run, begin, left = OrtSession.run, getattr(validation, place), iter(range(calls))
    is_there = threading.Event()

    def begun(*given: Any) -> Any:
        is_there.set()
        return begin(*given)

    def interrupted(session: OrtSession, *given: Any, **options: Any) -> Any:
        if is_there.is_set() and next(left, None) is None:
            signal.raise_signal(signal.SIGINT)
        return run(session, *given, **options)

    monkeypatch.setattr(validation, place, begun)
    monkeypatch.setattr(OrtSession, "run", interrupted)
    words = ["validate", bundle, "--reference", made.checkpoints / "stack", "--no-upstream"]
    outcome = run_cli(*words)
    assert outcome.code == 130
    if verdict is None:
        assert "interrupted (SIGINT)" in outcome.err
        assert not (bundle / "reports").exists()
        return
    assert outcome.out.startswith(f"verdict: {verdict}\n")
    content = json.loads((bundle / "reports" / "validation.json").read_text())
    assert (content["verdict"], content["complete"]) == (verdict, False)
    assert "incomplete" in (bundle / "reports" / "validation.md").read_text().splitlines()[0]


def test_memory_chooses_the_mode(made: Made, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["validate", bundle, "--reference", made.checkpoints / "stack", "--no-upstream"]
    for size, said in (("plenty", "is no size"), ("1MiB", "the largest part of the model takes")):
        outcome = run_cli(*words, "--memory", size)
        assert outcome.code != 0
        assert said in " ".join(outcome.err.replace("│", " ").split())
    monkeypatch.setattr(plan, "_REST", 0)
    text = succeed(*words, "--memory", "0.4MB")
    assert text.startswith("verdict: self-consistent\n")
    assert "  mode       layer by layer\n" in text
    assert "in 5 parts that were loaded one after the other" in " ".join(text.split())
