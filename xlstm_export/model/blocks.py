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
    s, z = _scales(x, blocks, scale_type, 1.0)
    if blocks.bits == 4 or importance is not None:
        least = _error(x, s, z, blocks, importance)
        for shrink in SHRINKS[1:]:
            smaller, zero = _scales(x, blocks, scale_type, shrink)
            error = _error(x, smaller, zero, blocks, importance)
            better = error < least
            least = np.where(better, error, least)
            s, z = np.where(better, smaller, s), np.where(better, zero, z)
    return _rounded(x, s, z, blocks), s, z


def _scales(
    x: Float, blocks: Blocks, scale_type: np.dtype[Any], shrink: float
) -> tuple[npt.NDArray[Any], Float]:
    """s and z [rows, count] that reach ``shrink`` of the largest numbers of x."""
    low, high = _range(blocks)
    if blocks.symmetric:
        span = np.maximum(x.max(axis=-1), -x.min(axis=-1))
        return (span * np.float32(shrink / high)).astype(scale_type), np.zeros_like(span)
    floor = np.minimum(x.min(axis=-1), 0)
    span = np.maximum(x.max(axis=-1), 0) - floor
    s = (span * np.float32(shrink / high)).astype(scale_type)
    return s, np.clip(np.rint(-floor * np.float32(shrink) / _divisor(s)), low, high)


def _range(blocks: Blocks) -> tuple[int, int]:
    """The least and the largest of the numbers."""
    half = 2 ** (blocks.bits - 1)
    return (-half, half - 1) if blocks.symmetric else (0, 2 * half - 1)


def _divisor(s: npt.NDArray[Any]) -> Float:
    """s, or 1 where all numbers of a block are zero."""
    wide = s.astype(np.float32)
    return np.where(wide == 0, np.float32(1), wide)


def _rounded(x: Float, s: npt.NDArray[Any], z: Float, blocks: Blocks) -> Float:
    """The nearest q, float32 like x."""
    q: Float = x / _divisor(s)[..., None]
    np.rint(q, out=q)
    if not blocks.symmetric:
        q += z[..., None]
    return np.clip(q, *_range(blocks), out=q)


def _error(
    x: Float, s: npt.NDArray[Any], z: Float, blocks: Blocks, importance: Float | None
) -> npt.NDArray[Any]:
    """Squared error of each block [rows, count]."""
    error = _rounded(x, s, z, blocks)
    if not blocks.symmetric:
        error -= z[..., None]
    error *= s.astype(np.float32)[..., None]
    error -= x
    error *= error
    if importance is not None:
        error *= importance
    return np.asarray(error.sum(axis=-1))


def _spread(values: npt.NDArray[np.float64], size: int, columns: int) -> npt.NDArray[np.float64]:
    """One value a block to one a number: [rows, count] to [rows, columns]."""
    return np.repeat(values, size, axis=1)[:, :columns]
