"""The emulator meets the mistakes it is there to meet, each planted in a kernel of faults.cu."""

from __future__ import annotations

import ctypes
from functools import cache

import ml_dtypes
import numpy as np
import pytest

from tests.cuda.on_cpu import ASCENDING, DESCENDING, load, needs_compiler

pytestmark = needs_compiler

SUCCESS, INVALID_VALUE, LAUNCH_FAILURE = 0, 1, 719


@cache
def faults() -> ctypes.CDLL:
    lib = load("faults")
    lib.launch_fault.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    return lib


def launch(name: str, order: int = ASCENDING) -> tuple[int, np.ndarray, str]:
    """The launch's error, its results and what the emulator says."""
    out = np.zeros(64, np.float32)
    out[0] = 1
    faults().xlstm_emulator_order(order)
    error = faults().launch_fault(name.encode(), out.ctypes.data)
    return error, out, faults().xlstm_emulator_message().decode()


@pytest.mark.parametrize("order", [ASCENDING, DESCENDING, 3])
def test_a_right_kernel_gives_the_same_in_every_order(order: int) -> None:
    error, out, message = launch("waits", order)
    assert (error, message) == (SUCCESS, "")
    assert out.tolist() == [(t + 1) % 64 for t in range(64)]
    error, out, _ = launch("warp_sums", order)
    assert error == SUCCESS
    assert out.tolist() == [sum(range(32))] * 32 + [sum(range(32, 64))] * 32
    error, out, message = launch("sends", order)
    assert (error, message) == (SUCCESS, "")
    assert out.tolist() == [*range(32, 64), *range(32)]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("half_waits", "a barrier that not all reach"),
        ("two_barriers", "different barriers"),
        ("odd_lanes_shuffle", "a shuffle that not all lanes make"),
        ("past_shared", "past its end"),
        ("sends_before_all", "a block that need not have begun"),
        ("sends_to_the_ended", "a block that may have ended"),
        ("sends_outside", "outside its shared memory"),
        ("half_arrives", "a second arrival"),
        ("one_block_waits", "a barrier of the cluster that not all reach"),
    ],
)
def test_a_fault_ends_the_launch_with_its_name(name: str, says: str) -> None:
    error, _, message = launch(name)
    assert error == LAUNCH_FAILURE
    assert says in message
    assert launch("waits")[0] == SUCCESS


@pytest.mark.parametrize("name", ["missing_barrier", "disturbed", "sends_unparted"])
def test_a_race_shows_as_another_result_in_another_order(name: str) -> None:
    up, down = launch(name, ASCENDING), launch(name, DESCENDING)
    assert up[0] == down[0] == SUCCESS
    assert up[1].tobytes() != down[1].tobytes()


def test_shared_memory_starts_as_nan() -> None:
    assert np.isnan(launch("unset_shared")[1]).all()


@pytest.mark.parametrize("name", ["no_threads", "much_shared", "odd_cluster", "large_cluster"])
def test_a_launch_that_not_every_gpu_takes_is_refused(name: str) -> None:
    assert launch(name)[0] == INVALID_VALUE


def product(a: np.ndarray, b: np.ndarray, *, waits: bool, truncates: bool) -> np.ndarray:
    """a b of the matrix instruction, its operands by copies that may not be waited for."""
    out = np.zeros((16, 8), np.float32)
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, out)]
    faults().xlstm_emulator_truncates(truncates)
    assert faults().launch_product(*pointers, waits) == SUCCESS
    faults().xlstm_emulator_truncates(False)
    return out


def test_a_matrix_product_is_rounded_or_cut() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((16, 16)).astype(ml_dtypes.bfloat16)
    b = rng.standard_normal((16, 8)).astype(ml_dtypes.bfloat16)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    rounded = product(a, b, waits=True, truncates=False)
    assert np.array_equal(rounded, exact.astype(np.float32))
    cut = product(a, b, waits=True, truncates=True)
    assert (np.abs(cut) <= np.abs(exact)).all()
    assert (cut != rounded).any()
    np.testing.assert_allclose(cut, exact, rtol=2**-23)


def test_a_copy_that_is_not_waited_for_has_not_arrived() -> None:
    ones = np.ones((16, 16), ml_dtypes.bfloat16)
    assert np.isnan(product(ones, ones[:, :8].copy(), waits=False, truncates=False)).all()
    faults().xlstm_emulator_order(DESCENDING)  # there a copy into what others still read shows
    at_once = product(ones, ones[:, :8].copy(), waits=False, truncates=False)
    faults().xlstm_emulator_order(ASCENDING)
    assert (at_once == 16).all()


def test_half_types_convert_as_numpy_does() -> None:
    kinds = {"half": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
    bits = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(all="ignore"):
        wide = np.concatenate([bits.view(kind).astype(np.float32) for kind in kinds.values()])
        random = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, np.uint32)
        halfway = (wide * np.float32(1.0004883), np.nextafter(wide, np.float32(0)))
        values = np.concatenate([wide, random.view(np.float32), *halfway])
        for name, kind in kinds.items():
            got = np.empty(len(values), np.float32)
            convert = getattr(faults(), f"through_{name}")
            convert.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
            convert(values.ctypes.data, got.ctypes.data, len(values))
            wanted = values.astype(kind).astype(np.float32)
            assert np.array_equal(got, wanted, equal_nan=True), name
