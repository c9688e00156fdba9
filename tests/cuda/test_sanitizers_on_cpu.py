"""The CUDA kernels under AddressSanitizer and UndefinedBehaviorSanitizer: no report."""

from __future__ import annotations

import pytest

from tests.plugins.sanitized import (
    ADDRESS,
    Access,
    assert_clean,
    assert_overrun,
)

SANITIZER = ADDRESS


def test_kernels_touch_nothing_they_may_not(run) -> None:
    done = run("cases")
    assert_clean(done)
    assert int(done.stdout.split()[-1]) > 300


@pytest.mark.parametrize(("what", "access"), [("short-input", "READ"), ("short-output", "WRITE")])
def test_a_buffer_one_element_too_short_is_caught(run, what: str, access: Access) -> None:
    assert_overrun(run(what), access, "xlstm::cuda::", "plugins/kernels/cuda/")


def test_a_kernel_that_leaves_its_shared_memory_is_caught(run) -> None:
    done = run("past_shared")
    assert done.returncode != 0, done.stdout
    assert "ERROR: AddressSanitizer: " in done.stderr, done.stderr
    assert " in past_shared " in done.stderr, done.stderr


def test_a_right_kernel_is_not_reported(run) -> None:
    done = run("waits")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
