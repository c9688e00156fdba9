"""The kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer: no report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.sanitized import (
    ADDRESS,
    THREAD,
    Access,
    Sanitizer,
    assert_clean,
    assert_overrun,
    assert_race,
    build,
    run_child,
    why_not,
)
from tests.plugins.test_kernel_isas import every_set
from xlstm_export.native import ISA_VARIABLE

SWEEP = "tests.plugins.sanitizer_sweep"


def built(sanitizer: Sanitizer) -> Path:
    reason = why_not(sanitizer)
    if reason:
        pytest.skip(reason)
    return build(sanitizer)


@pytest.fixture(scope="session")
def address_library() -> Path:
    """Folder of the library built with AddressSanitizer and UndefinedBehaviorSanitizer."""
    return built(ADDRESS)


@pytest.fixture(scope="session")
def thread_library() -> Path:
    """Folder of the library built with ThreadSanitizer."""
    return built(THREAD)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_calls_touch_nothing_they_may_not(address_library: Path, seed: int) -> None:
    given = ["--calls", "5000", "--seed", str(seed), "--exact"]
    done = run_child(ADDRESS, address_library, ["-m", "tests.plugins.fuzz_kernels", *given])
    assert_clean(done)
    counts = [line.split() for line in done.stdout.splitlines()]
    assert sum(int(count) for _, count in counts) == 5000


@every_set
def test_op_cases_touch_nothing_they_may_not(
    address_library: Path, forced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, forced)
    done = run_child(ADDRESS, address_library, ["-m", SWEEP, "cases"])
    assert_clean(done)
    assert f"isa {forced}" in done.stdout


@every_set
@pytest.mark.parametrize(("what", "access"), [("short-input", "READ"), ("short-output", "WRITE")])
def test_a_buffer_one_element_too_short_is_caught(
    address_library: Path, what: str, access: Access, forced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, forced)
    done = run_child(ADDRESS, address_library, ["-m", SWEEP, what])
    assert_overrun(done, access, f"xlstm::cpu::{forced}::", "xlstm_cpu_run")


def test_undefined_behaviour_is_looked_for(address_library: Path) -> None:
    library = (address_library / "libxlstm_c.so").read_bytes()
    for handler in (b"add_overflow", b"pointer_overflow", b"out_of_bounds", b"type_mismatch"):
        assert b"__ubsan_handle_" + handler in library, handler


def test_threads_of_a_pool_do_not_race(thread_library: Path) -> None:
    assert_clean(run_child(THREAD, thread_library, ["-m", SWEEP, "pool"]))


def test_concurrent_callers_do_not_race(thread_library: Path) -> None:
    assert_clean(run_child(THREAD, thread_library, ["-m", SWEEP, "callers"]))


def test_callers_of_one_pool_take_turns(thread_library: Path) -> None:
    assert_clean(run_child(THREAD, thread_library, ["-m", SWEEP, "turns"]))


def test_two_callers_on_one_state_are_caught(thread_library: Path) -> None:
    done = run_child(THREAD, thread_library, ["-m", SWEEP, "shared-state"])
    assert_race(done, "xlstm::cpu::", "xlstm_cpu_run")
