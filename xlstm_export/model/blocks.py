"""Matrices as small whole numbers with a scale for each block of inputs.

A block x of consecutive inputs of one output is kept as q with x ~ (q - z) s. The scale s is that
of round to nearest, or one of a few smaller ones, which cut off what sticks out: whichever leaves
the least squared error. With the mean squares of a layer's inputs, each input's error counts as
much as it does in the layer's output: E[(w x)^2] = w^2 E[x^2] for inputs that are uncorrelated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xlstm_export.bundle.low_bit import Blocks

SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
"""Of the scale that reaches the largest number. In 8 bits nothing is gained by cutting off."""
_CHUNK = 1 << 18
"""Numbers worked on at once: temporaries stay small beside the matrix, and in the cache."""

Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Quantised:
    """``numbers`` int8, or uint8 with ``zeros``, [out, in]; ``scales`` and ``zeros`` [out, blocks].

    The last block of a row may be a part of one.
    """

    numbers: npt.NDArray[np.int8] | npt.NDArray[np.uint8]
    scales: npt.NDArray[Any]
    zeros: npt.NDArray[np.uint8] | None
    size: int

    def dequantised(self) -> npt.NDArray[np.float64]:
        """(q - z) s, exact."""
        left = self.numbers.astype(np.float64)
        columns = left.shape[1]
        if self.zeros is not None:
            left -= _spread(self.zeros.astype(np.float64), self.size, columns)
        left *= _spread(self.scales.astype(np.float64), self.size, columns)
        return left


def block_count(inputs: int, size: int) -> int:
    """Blocks of one row."""
    return -(-inputs // size)


def quantise(
    matrix: npt.NDArray[Any],
    blocks: Blocks,
    scale_type: np.dtype[Any],
    importance: Float | None = None,
) -> Quantised:
    """``matrix`` [out, in] in ``blocks``, its scales rounded to ``scale_type``.

    ``importance`` [in]: mean square of each input, where it is known. Rows do not know of each
    other, so a stack of matrices is the stack of their results.
    """
    rows, columns = matrix.shape
    count = block_count(columns, blocks.size)
    numbers: Any = np.empty((rows, columns), np.int8 if blocks.symmetric else np.uint8)
    scales = np.empty((rows, count), scale_type)
    zeros = None if blocks.symmetric else np.empty((rows, count), np.uint8)
    weights = None if importance is None else _blocks(importance[None], count, blocks.size)
    for part in _chunks(rows, columns):
        x = _blocks(matrix[part], count, blocks.size)
        q, s, z = _best(x, blocks, scale_type, weights)
        numbers[part] = q.reshape(len(x), -1)[:, :columns]
        scales[part] = s
        if zeros is not None:
            zeros[part] = z
    return Quantised(numbers, scales, zeros, blocks.size)


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _blocks(matrix: npt.NDArray[Any], count: int, size: int) -> Float:
    """[rows, in] as float32 [rows, blocks, size], zeros behind the end."""
    padded = np.zeros((len(matrix), count * size), np.float32)
    padded[:, : matrix.shape[1]] = matrix
    return padded.reshape(-1, count, size)


def _best(
    x: Float, blocks: Blocks, scale_type: np.dtype[Any], importance: Float | None
) -> tuple[Float, npt.NDArray[Any], Float]:
    """q, s, z of the scale with the least squared error, blocks [rows, count, size]."""
    q, s, z = _rounded(x, blocks, scale_type, 1.0)
    if blocks.bits == 8 and importance is None:
        return q, s, z
    least = _error(x, q, s, z, importance)
    for shrink in SHRINKS[1:]:
        other = _rounded(x, blocks, scale_type, shrink)
        error = _error(x, *other, importance)
        better = error < least
        least = np.where(better, error, least)
        s, z = np.where(better, other[1], s), np.where(better, other[2], z)
        q = np.where(better[..., None], other[0], q)
    return q, s, z


def _rounded(
    x: Float, blocks: Blocks, scale_type: np.dtype[Any], shrink: float
) -> tuple[Float, npt.NDArray[Any], Float]:
    """Round to nearest: q float32 like x, s and z [rows, count]."""
    most = 2**blocks.bits - 1
    if blocks.symmetric:
        low, high = -(most // 2) - 1, most // 2
        span, steps = np.abs(x).max(axis=-1), high
    else:
        low, high = 0, most
        floor = np.minimum(x.min(axis=-1), 0)
        span, steps = np.maximum(x.max(axis=-1), 0) - floor, most
    s = (span * np.float32(shrink / steps)).astype(scale_type)
    divisor = s.astype(np.float32)
    divisor = np.where(divisor == 0, np.float32(1), divisor)
    zero: Float = np.zeros_like(span)
    if not blocks.symmetric:
        zero = np.clip(np.rint(-floor * np.float32(shrink) / divisor), low, high)
    q = np.clip(np.rint(x / divisor[..., None]) + zero[..., None], low, high)
    return q, s, zero


def _error(
    x: Float, q: Float, s: npt.NDArray[Any], z: Float, importance: Float | None
) -> npt.NDArray[Any]:
    """Squared error of each block [rows, count]."""
    error = (q - z[..., None]) * s.astype(np.float32)[..., None] - x
    error *= error
    if importance is not None:
        error *= importance
    return np.asarray(error.sum(axis=-1))


def _spread(values: npt.NDArray[np.float64], size: int, columns: int) -> npt.NDArray[np.float64]:
    """One value a block to one a number: [rows, count] to [rows, columns]."""
    return np.repeat(values, size, axis=1)[:, :columns]
