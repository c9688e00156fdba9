"""Concurrent runs of one session under ThreadSanitizer.

ONNX Runtime itself is not instrumented: its locks are seen, its memory accesses mostly not. With
intra_op_num_threads=1 every call stays on its caller's thread, and no suppression is needed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.ort_sanitized import built
from tests.plugins.sanitized import THREAD, assert_clean, assert_race, run_child


@pytest.fixture(scope="session")
def thread_library() -> Path:
    """Folder of the library built with ThreadSanitizer."""
    return built(THREAD)


def test_eight_callers_of_one_session_do_not_race(thread_library: Path) -> None:
    done = run_child(THREAD, thread_library, ["-m", "tests.plugins.ort_sweep", "callers"])
    assert_clean(done)
    assert done.stdout.strip() == "called at once"


def test_a_race_inside_the_kernel_is_reported(thread_library: Path) -> None:
    done = run_child(THREAD, thread_library, ["-m", "tests.plugins.ort_sweep", "shared-state"])
    assert_race(done, "xlstm::cpu::", "xlstm::ort::Kernel::compute")
