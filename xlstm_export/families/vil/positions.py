"""Position embeddings for another grid, as upstream makes them: bicubic, on the stored table.

The kernel is that of Keys (1981) with a = -0.75, which torch's ``interpolate`` uses; samples
beyond the edge repeat it, and pixel centres are aligned (``align_corners=False``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from xlstm_export.model.weights import Array, Weight

_A = -0.75

Grid = tuple[int, int]


def position_table(stored: Weight, grids: Sequence[Grid]) -> Weight:
    """The table [T,D] of the last of ``grids``, from ``stored`` [1,h,w,D].

    It is resized to each grid in turn; a grid that it has already leaves it as it is.
    """
    size = stored.shape[-1]
    if all(grid == stored.shape[1:3] for grid in grids):
        return stored.with_view(lambda table: table.reshape(-1, size))
    dtype = "float64" if stored.dtype == "float64" else "float32"

    def load() -> Array:
        table = stored.load()[0].astype(np.float64)
        for grid in grids:
            table = resized(table, grid)
        flat: Array = table.reshape(-1, size).astype(dtype)
        return flat

    shape = (grids[-1][0] * grids[-1][1], size)
    return replace(stored, shape=shape, dtype=dtype, load=load)


def resized(table: npt.NDArray[np.float64], grid: Grid) -> npt.NDArray[np.float64]:
    """``table`` [h,w,D] on ``grid``, in float64."""
    if table.shape[:2] == grid:
        return table
    down, across = (_matrix(old, new) for old, new in zip(table.shape, grid, strict=False))
    result: npt.NDArray[np.float64] = np.einsum("yh,hwd,xw->yxd", down, table, across)
    return result


def _matrix(old: int, new: int) -> npt.NDArray[np.float64]:
    """Row y holds the weights of the ``old`` samples in sample y of ``new``."""
    at = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(at).astype(np.int64)
    matrix = np.zeros((new, old))
    for step in range(-1, 3):
        sample = np.clip(first + step, 0, old - 1)
        np.add.at(matrix, (np.arange(new), sample), _kernel(at - (first + step)))
    return matrix


def _kernel(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(a+2)|x|^3 - (a+3)|x|^2 + 1 up to 1, a|x|^3 - 5a|x|^2 + 8a|x| - 4a up to 2."""
    x = np.abs(distance)
    near = ((_A + 2) * x - (_A + 3)) * x**2 + 1
    far = ((x - 5) * x + 8) * x * _A - 4 * _A
    return np.where(x <= 1, near, far)
