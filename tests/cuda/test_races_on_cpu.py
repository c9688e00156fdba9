"""The CUDA kernels under ThreadSanitizer: CUDA threads are threads, ordered by barriers alone."""

from __future__ import annotations

import pytest

from tests.cuda.sanitizer_sweep import RACES
from tests.plugins.sanitized import THREAD, assert_clean, assert_race

SANITIZER = THREAD


def test_no_kernel_races(run) -> None:
    done = run("races")
    assert_clean(done)
    assert len(done.stdout.splitlines()) == len(RACES) + 1


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
