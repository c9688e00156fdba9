"""The kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer: no report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.sanitized import ADDRESS, THREAD, Sanitizer, build, run_child, why_not

REPORTS = ("Sanitizer", "runtime error:")


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


def assert_clean(sanitizer: Sanitizer, library: Path, *arguments: str) -> str:
    """Exit status 0 and no report; what the child printed."""
    done = run_child(sanitizer, library, ["-m", *arguments])
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert not [word for word in REPORTS if word in done.stderr], done.stderr
    return done.stdout


def assert_caught(sanitizer: Sanitizer, library: Path, report: str, *arguments: str) -> None:
    done = run_child(sanitizer, library, ["-m", *arguments])
    assert done.returncode != 0, done.stdout
    assert report in done.stderr, done.stderr


SWEEP = "tests.plugins.sanitizer_sweep"


@pytest.mark.parametrize("seed", [1, 2])
def test_random_calls_touch_nothing_they_may_not(address_library: Path, seed: int) -> None:
    given = ["--calls", "5000", "--seed", str(seed), "--exact"]
    out = assert_clean(ADDRESS, address_library, "tests.plugins.fuzz_kernels", *given)
    counts = [line.split() for line in out.splitlines()]
    assert sum(int(count) for _, count in counts) == 5000


@pytest.mark.parametrize("isa", ["portable", "neon", "avx2", "avx512"])
def test_op_cases_touch_nothing_they_may_not(
    address_library: Path, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLSTM_CPU_ISA", isa)
    out = assert_clean(ADDRESS, address_library, SWEEP, "cases")
    if "no such instruction set" in out:
        pytest.skip(f"this processor has no {isa}")
    assert f"isa {isa}" in out


@pytest.mark.parametrize("what", ["short-input", "short-output"])
def test_a_buffer_one_element_too_short_is_caught(address_library: Path, what: str) -> None:
    assert_caught(ADDRESS, address_library, "ERROR: AddressSanitizer", SWEEP, what)


def test_undefined_behaviour_is_looked_for(address_library: Path) -> None:
    library = (address_library / "libxlstm_c.so").read_bytes()
    for handler in (b"add_overflow", b"pointer_overflow", b"out_of_bounds", b"type_mismatch"):
        assert b"__ubsan_handle_" + handler in library, handler


def test_threads_of_a_pool_do_not_race(thread_library: Path) -> None:
    assert_clean(THREAD, thread_library, SWEEP, "pool")


def test_concurrent_callers_do_not_race(thread_library: Path) -> None:
    assert_clean(THREAD, thread_library, SWEEP, "callers")


def test_two_callers_on_one_state_are_caught(thread_library: Path) -> None:
    assert_caught(THREAD, thread_library, "data race", SWEEP, "shared-state")
