"""The CUDA kernels under ThreadSanitizer: CUDA threads are threads, ordered by barriers alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cuda.on_cpu import build
from tests.cuda.sanitizer_sweep import RACES
from tests.plugins.sanitized import THREAD, assert_clean, assert_race, run_child, why_not

SWEEP = "tests.cuda.sanitizer_sweep"


@pytest.fixture(scope="module")
def folder() -> Path:
    """Folder of the emulated kernels, built with the sanitizer."""
    reason = why_not(THREAD)
    if reason:
        pytest.skip(reason)
    return build(THREAD.flags)


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a part of the sweep."""
    monkeypatch.setenv("XLSTM_CUDA_ON_CPU", str(folder))

    def child(what: str) -> subprocess.CompletedProcess[str]:
        return run_child(THREAD, folder, ["-m", SWEEP, what])

    return child


def test_no_kernel_races(run) -> None:
    done = run("races")
    assert_clean(done)
    assert len(done.stdout.splitlines()) == len(RACES)


@pytest.mark.parametrize(
    ("fault", "kernel"),
    [
        ("missing_barrier", "neighbours"),
        ("disturbed", "disturbed"),  # blocks
        ("sends_unparted", "sends"),  # of a cluster
    ],
)
def test_a_race_is_reported(run, fault: str, kernel: str) -> None:
    assert_race(run(fault), kernel)


@pytest.mark.parametrize("kernel", ["waits", "sends"])
def test_a_right_kernel_is_not_reported(run, kernel: str) -> None:
    done = run(kernel)
    assert_clean(done)
    assert done.stdout == "0\n"
