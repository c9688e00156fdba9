"""Lazy tensors: a checkpoint is described at once, its numbers are read when written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Weight:
    """A tensor that is read on demand.

    ``dtype`` is the stored numpy type name ("bfloat16" included, through ml_dtypes).
    ``sources`` are the checkpoint keys it is made from, for messages and for rounding upstream.
    ``load`` returns a fresh array of ``shape`` and ``dtype`` each time.
    """

    shape: tuple[int, ...]
    dtype: str
    sources: tuple[str, ...]
    load: Callable[[], Array]

    def with_view(self, view: Callable[[Array], Array]) -> Weight:
        """The same numbers rearranged (slice, reshape, transpose), still unread."""
        probe = np.broadcast_to(np.empty((), np.bool_), self.shape)
        return Weight(view(probe).shape, self.dtype, self.sources, lambda: view(self.load()))

    def with_values(self, change: Callable[[Array], Array]) -> Weight:
        """Numbers changed elementwise in float32 (or float64), shape kept."""
        dtype = "float64" if self.dtype == "float64" else "float32"
        return Weight(self.shape, dtype, self.sources, lambda: change(self.load().astype(dtype)))


Weights = Mapping[str, Weight]


def concatenate(parts: Sequence[Weight], axis: int) -> Weight:
    """Several weights joined along ``axis``, in the narrowest type that holds all of theirs."""
    types = {p.dtype for p in parts}
    wide = "float64" if "float64" in types else "float32"
    dtype = parts[0].dtype if len(types) == 1 else wide
    shape = list(parts[0].shape)
    shape[axis] = sum(p.shape[axis] for p in parts)
    return Weight(
        tuple(shape),
        dtype,
        tuple(key for p in parts for key in p.sources),
        lambda: np.concatenate([_as(p, dtype) for p in parts], axis=axis),
    )


def _as(weight: Weight, dtype: str) -> Array:
    return weight.load() if weight.dtype == dtype else weight.load().astype(dtype)


def below(weights: Weights, prefix: str) -> dict[str, Weight]:
    """The weights whose names start with ``prefix.``, with that prefix removed."""
    start = prefix + "."
    return {name[len(start) :]: w for name, w in weights.items() if name.startswith(start)}
