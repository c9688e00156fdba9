"""Lazy tensors: a checkpoint is described at once, its numbers are read when written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from xlstm_export.bundle.low_bit import Blocks

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Weight:
    """A tensor that is read on demand.

    ``dtype`` is the stored numpy type name ("bfloat16" included, through ml_dtypes).
    ``sources`` are the checkpoint keys it is made from, ``origin`` the file they are in.
    ``load`` returns a fresh array of ``shape`` and ``dtype`` each time; its numbers may be NaN.
    ``offset`` is what was added to the stored numbers. ``kept`` is the element type in a bundle,
    "" where none has been chosen; with ``blocks``, a matrix [out, in] is kept in few bits and
    ``kept`` is the type of its scales, which ``importance`` [in] helps to choose.
    """

    shape: tuple[int, ...]
    dtype: str
    sources: tuple[str, ...]
    load: Callable[[], Array]
    origin: str = ""
    offset: float = 0.0
    kept: str = ""
    blocks: Blocks | None = None
    importance: npt.NDArray[np.float32] | None = field(default=None, compare=False)

    def with_view(self, view: Callable[[Array], Array]) -> Weight:
        """The same numbers rearranged (slice, reshape, transpose), still unread."""
        probe = np.broadcast_to(np.empty((), np.bool_), self.shape)
        return replace(self, shape=view(probe).shape, load=lambda: view(self.load()))

    def with_offset(self, offset: float) -> Weight:
        """Numbers shifted by ``offset``, in float32 (or float64); itself for 0."""
        if not offset:
            return self
        dtype = "float64" if self.dtype == "float64" else "float32"
        shift = np.dtype(dtype).type(offset)
        return replace(
            self,
            dtype=dtype,
            offset=self.offset + offset,
            load=lambda: self.load().astype(dtype) + shift,
        )

    def with_load(self, shape: tuple[int, ...], load: Callable[[], Array]) -> Weight:
        """Numbers of ``shape`` made from this tensor's by ``load``."""
        return replace(self, shape=shape, load=load)

    def kept_as(
        self,
        dtype: str,
        blocks: Blocks | None = None,
        importance: npt.NDArray[np.float32] | None = None,
    ) -> Weight:
        """The same numbers, to be stored as ``dtype``, or in ``blocks`` with scales of it."""
        return replace(self, kept=dtype, blocks=blocks, importance=importance)


Weights = Mapping[str, Weight]


def count_parameters(weights: Iterable[Weight]) -> int:
    """Numbers in all of ``weights``."""
    return sum(math.prod(weight.shape) for weight in weights)


def concatenate(parts: Sequence[Weight], axis: int) -> Weight:
    """Several weights joined along ``axis``, in the narrowest type that holds all of theirs.

    Raises ValueError where they are to be stored in different types.
    """
    kept = {(p.kept, p.blocks) for p in parts}
    if len(kept) > 1:
        raise ValueError(f"weights of one matrix are stored as {sorted(map(str, kept))}")
    types = {p.dtype for p in parts}
    wide = "float64" if "float64" in types else "float32"
    dtype = parts[0].dtype if len(types) == 1 else wide
    shape = list(parts[0].shape)
    shape[axis] = sum(p.shape[axis] for p in parts)
    return replace(
        parts[0],
        shape=tuple(shape),
        dtype=dtype,
        sources=tuple(key for p in parts for key in p.sources),
        load=lambda: np.concatenate([_as(p, dtype) for p in parts], axis=axis),
    )


def zeros_like(weight: Weight, *shape: int) -> Weight:
    """Zeros of ``shape``, stored as ``weight`` is."""
    return Weight(shape, "float32", (), lambda: np.zeros(shape, np.float32), kept=weight.kept)


def _as(weight: Weight, dtype: str) -> Array:
    return weight.load() if weight.dtype == dtype else weight.load().astype(dtype)


def below(weights: Weights, prefix: str) -> dict[str, Weight]:
    """The weights whose names start with ``prefix.``, with that prefix removed."""
    start = prefix + "."
    return {name[len(start) :]: w for name, w in weights.items() if name.startswith(start)}
