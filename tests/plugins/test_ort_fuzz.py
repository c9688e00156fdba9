"""Random models and calls through ONNX Runtime, in processes of their own: no crash, no report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins import fuzz_ort
from tests.plugins.fuzz_ort import Fuzz, WrongAnswerError, fuzz
from tests.plugins.native_builds import ROOT
from tests.plugins.ort_sanitized import built
from tests.plugins.sanitized import ADDRESS, Access, assert_clean, assert_overrun, run_child
from tests.plugins.test_kernel_isas import every_set
from xlstm_export.native import ISA_VARIABLE

CALLS = 500


@pytest.fixture(scope="session")
def address_library() -> Path:
    """Folder of the library built with AddressSanitizer and UndefinedBehaviorSanitizer."""
    return built(ADDRESS)


def assert_no_crash(done: subprocess.CompletedProcess[str]) -> None:
    """Exit status 0 with both outcomes seen; else the last call announced is the one at fault."""
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-6000:]}"
    counts = {word: int(count) for word, count in map(str.split, done.stdout.splitlines())}
    assert sum(counts.values()) == CALLS
    assert min(counts["good"], counts["refused"]) > CALLS // 5


def test_every_random_call_gives_outputs_or_an_exception() -> None:
    command = [sys.executable, "-m", "tests.plugins.fuzz_ort", "--calls", str(CALLS), "--seed", "1"]
    assert_no_crash(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False))


def test_random_calls_touch_nothing_they_may_not(address_library: Path) -> None:
    arguments = ["-m", "tests.plugins.fuzz_ort", "--calls", str(CALLS), "--seed", "2", "--exact"]
    done = run_child(ADDRESS, address_library, arguments)
    assert_clean(done)
    assert_no_crash(done)


@every_set
@pytest.mark.parametrize(("what", "access"), [("short-input", "READ"), ("short-output", "WRITE")])
def test_a_buffer_one_element_too_short_is_caught(
    address_library: Path, what: str, access: Access, forced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, forced)
    done = run_child(ADDRESS, address_library, ["-m", "tests.plugins.ort_sweep", what])
    assert_overrun(done, access, f"xlstm::cpu::{forced}::", "xlstm::ort::Kernel::compute")


def test_the_fuzz_notices_a_call_that_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fuzz, "is_good", lambda self: False)
    with pytest.raises(WrongAnswerError, match="not refused"):
        fuzz(50, 0, 0, False)


def test_the_fuzz_notices_a_good_call_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fuzz, "is_good", lambda self: True)
    with pytest.raises(WrongAnswerError, match="refused: "):
        fuzz(50, 0, 0, False)


def test_the_fuzz_notices_wrong_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*given: object) -> dict[str, object]:
        results = run(*given)  # type: ignore[arg-type]
        return {name: value + 1 for name, value in results.items()}

    run = fuzz_ort.run_aliased
    monkeypatch.setattr(fuzz_ort, "run_aliased", changed)
    with pytest.raises(WrongAnswerError, match="differs where the states are one buffer"):
        fuzz(50, 0, 0, False)


def test_a_call_is_repeated_by_its_number() -> None:
    assert str(Fuzz(3, 41)) == str(Fuzz(3, 41)) != str(Fuzz(3, 42))
