"""Rows of a batch, and the last steps of its rows, whatever memory they are in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@runtime_checkable
class Gathering(Protocol):
    """An array that gathers rows of its kind where they lie."""

    @classmethod
    def gather(cls, arrays: Sequence[Any], indices: Array) -> Any:
        """Rows ``indices`` of ``arrays`` one below the other; -1 is a row of zeros."""
        ...


def gather(arrays: Sequence[Any], indices: Array) -> Any:
    """Rows ``indices`` of ``arrays`` one below the other, in new memory; -1 is a row of zeros.

    Arrays of one kind that gathers stay where they are; others come to the host.
    """
    kind = type(arrays[0])
    if isinstance(arrays[0], Gathering) and all(type(array) is kind for array in arrays):
        return kind.gather(arrays, indices)
    return gather_on_host(arrays, indices)


def gather_on_host(arrays: Sequence[Any], indices: Array) -> Array:
    """As ``gather``, of what numpy reads."""
    hosts = [np.asarray(array) for array in arrays]
    sizes = [len(array) for array in hosts]
    if np.array_equal(indices, np.arange(sum(sizes))):
        return np.concatenate(hosts)
    one = hosts[0] if len(hosts) == 1 else np.concatenate(hosts)
    rows = np.take(one, indices, axis=0)
    rows[indices < 0] = 0
    return rows


def last_indices(lengths: Array | None, batch: int, steps: int) -> Array:
    """The index of each row's last step, of ``steps``; -1 in ``lengths`` means all, 0 the first."""
    if lengths is None:
        return np.full(batch, steps - 1)
    given = np.where(lengths < 0, steps, np.minimum(lengths, steps))
    return np.asarray(np.maximum(given - 1, 0))
