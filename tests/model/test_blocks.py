"""Matrices in blocks: what is left of them, and that each number is the nearest there is."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from xlstm_export.bundle.low_bit import Blocks
from xlstm_export.model.blocks import SHRINKS, block_count, quantise

SINGLE = np.dtype(np.float32)
every_kind = pytest.mark.parametrize(
    "blocks", [Blocks(bits, size, sym) for bits in (4, 8) for size in (16, 32) for sym in (1, 0)],
    ids=str,
)  # fmt: skip


def matrix(rows: int = 7, columns: int = 80, seed: int = 0) -> npt.NDArray[np.float32]:
    random = np.random.default_rng(seed)
    return random.standard_normal((rows, columns)).astype(np.float32)


def by_block(values: npt.NDArray[Any], size: int, columns: int = 80) -> npt.NDArray[Any]:
    return np.repeat(values.astype(np.float64), size, axis=1)[:, :columns]


@every_kind
def test_numbers_are_the_nearest_of_their_range(blocks: Blocks) -> None:
    """Within half a scale, but where a smaller scale cut off what sticks out."""
    given = matrix()
    made = quantise(given, blocks, SINGLE)
    scales = by_block(made.scales, blocks.size)
    zeros = 0 if made.zeros is None else by_block(made.zeros, blocks.size)
    most = 2**blocks.bits - 1
    low = -(most // 2) - 1 if blocks.symmetric else 0
    assert made.numbers.dtype == (np.int8 if blocks.symmetric else np.uint8)
    nearest = np.clip(np.rint(given / scales.astype(np.float32)) + zeros, low, low + most)
    np.testing.assert_array_equal(made.numbers, nearest)
    np.testing.assert_array_equal(made.dequantised(), (made.numbers - zeros) * scales)


@every_kind
def test_the_scale_is_the_best_of_the_few(blocks: Blocks) -> None:
    """Recomputed here from the definition, block by block."""
    given = matrix(3, 64)
    left = quantise(given, blocks, SINGLE).dequantised()
    for row in range(3):
        for start in range(0, 64, blocks.size):
            part = slice(start, start + blocks.size)
            x = given[row, part].astype(np.float64)
            found = ((left[row, part] - x) ** 2).sum()
            tried = SHRINKS if blocks.bits == 4 else SHRINKS[:1]
            assert found <= 1.0001 * min(rounded_error(x, blocks, shrink) for shrink in tried)


def rounded_error(x: npt.NDArray[np.float64], blocks: Blocks, shrink: float) -> float:
    """Squared error of one block by round to nearest."""
    most = 2**blocks.bits - 1
    if blocks.symmetric:
        scale, zero, low = np.abs(x).max() / (most // 2) * shrink, 0.0, -(most // 2) - 1
    else:
        floor = min(x.min(), 0.0)
        scale, low = (max(x.max(), 0.0) - floor) / most * shrink, 0
        zero = float(np.clip(np.rint(-floor * shrink / scale), 0, most))
    q = np.clip(np.rint(x / scale) + zero, low, low + most)
    return float((((q - zero) * scale - x) ** 2).sum())


@pytest.mark.parametrize("bits", [4, 8])
def test_asymmetric_8_bits_are_those_of_onnxruntime(bits: int) -> None:
    """An independent implementation: its error is ours, or larger where we tried more scales."""
    ort = pytest.importorskip("onnxruntime.capi._pybind_state")
    given = matrix(16, 64)
    rows, columns, size = 16, 64, 32
    packed = np.zeros((rows, columns // size, size * bits // 8), np.uint8)
    scales = np.zeros((rows, columns // size), np.float32)
    zeros = np.zeros((rows, -(-columns // size * bits // 8)), np.uint8)
    function = ort.quantize_matmul_4bits if bits == 4 else ort.quantize_matmul_8bits
    function(packed, given.T.copy(), scales.ravel(), zeros, size, rows, columns, False)
    if bits == 4:
        packed = np.stack([packed & 15, packed >> 4], axis=-1)
        zeros = np.stack([zeros & 15, zeros >> 4], axis=-1)
    q, z = packed.reshape(rows, columns), zeros.reshape(rows, -1)[:, : columns // size]
    theirs = (q - by_block(z, size)) * by_block(scales, size)
    ours = quantise(given, Blocks(bits, size, symmetric=False), SINGLE).dequantised()
    limits = (0.7, 1.001) if bits == 4 else (0.98, 1.02)
    assert limits[0] < ((ours - given) ** 2).sum() / ((theirs - given) ** 2).sum() < limits[1]


@every_kind
def test_a_part_of_a_block_at_the_end(blocks: Blocks) -> None:
    """What is padded changes nothing: the same as a whole block of zeros behind it."""
    given = matrix(5, 70)
    made = quantise(given, blocks, SINGLE)
    assert made.scales.shape == (5, block_count(70, blocks.size))
    padded = np.pad(given, ((0, 0), (0, block_count(70, blocks.size) * blocks.size - 70)))
    whole = quantise(padded, blocks, SINGLE).dequantised()[:, :70]
    np.testing.assert_array_equal(made.dequantised(), whole)


@every_kind
def test_rows_know_nothing_of_each_other(blocks: Blocks) -> None:
    """Matrices that share an input are joined in the graph, and one by one in a reference."""
    a, b = matrix(9, 96, seed=1), matrix(600, 96, seed=2)
    joined = quantise(np.concatenate([a, b]), blocks, SINGLE).dequantised()
    apart = [quantise(part, blocks, SINGLE).dequantised() for part in (a, b)]
    np.testing.assert_array_equal(joined, np.concatenate(apart))


@every_kind
@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_scales_are_rounded_before_the_numbers(blocks: Blocks, kind: type) -> None:
    made = quantise(matrix(), blocks, np.dtype(kind))
    assert made.scales.dtype == kind
    again = np.rint(matrix() / by_block(made.scales, blocks.size))
    zeros = 0 if made.zeros is None else by_block(made.zeros, blocks.size)
    inside = np.abs(again + zeros - made.numbers) == 0
    assert inside.mean() > 0.97  # all but what a smaller scale cut off


@every_kind
def test_zeros_stay_zeros(blocks: Blocks) -> None:
    given = matrix()
    given[2] = 0
    given[:, ::3] = 0
    left = quantise(given, blocks, SINGLE).dequantised()
    np.testing.assert_array_equal(left[given == 0], 0.0)


@pytest.mark.parametrize("symmetric", [True, False])
def test_importance_counts_what_reaches_the_output(symmetric: bool) -> None:
    """Inputs of very different size: the error of the output shrinks, not that of the matrix."""
    random = np.random.default_rng(3)
    given = random.standard_normal((64, 128)).astype(np.float32)
    sizes = np.exp(2 * random.standard_normal(128)).astype(np.float32)
    inputs = random.standard_normal((512, 128)) * sizes
    blocks = Blocks(4, 32, symmetric)
    plain = quantise(given, blocks, SINGLE).dequantised()
    calibrated = quantise(given, blocks, SINGLE, sizes**2).dequantised()
    errors = [np.square(inputs @ (left - given).T).mean() for left in (plain, calibrated)]
    assert errors[1] < 0.97 * errors[0]
    assert np.square(calibrated - given).mean() >= np.square(plain - given).mean()
