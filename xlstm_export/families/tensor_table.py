"""Taking tensors out of a checkpoint by name, so that nothing is missing and nothing is ignored."""

from __future__ import annotations

from collections.abc import Mapping

from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.model.weights import Weight

_FLOAT_TYPES = ("float64", "float32", "float16", "bfloat16")


class TensorTable:
    """The tensors of one checkpoint; each is taken once, ``finish`` refuses what is left."""

    def __init__(self, tensors: Mapping[str, Weight], origin: str) -> None:
        """``origin`` names the file or folder in messages."""
        self._tensors = tensors
        self._origin = origin
        self._taken: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    def names(self) -> tuple[str, ...]:
        """Every name, taken or not."""
        return tuple(self._tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of ``key`` without taking it; raises CheckpointError when it is missing."""
        return self._find(key).shape

    def take(self, key: str, *shape: int | None) -> Weight:
        """The tensor ``key``; ``shape`` is what it must have, None for any size of a dimension.

        Raises CheckpointError when it is missing or has another shape, UnsupportedModelError
        when its element type is not a floating-point one.
        """
        weight = self._find(key)
        fits = len(weight.shape) == len(shape) and all(
            want in (None, have) for want, have in zip(shape, weight.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if s is None else str(s) for s in shape)
            raise CheckpointError(
                f"{self._origin}: tensor {key} has shape {list(weight.shape)}, "
                f"expected [{wanted}]; does the configuration belong to these weights?"
            )
        if weight.dtype not in _FLOAT_TYPES:
            raise UnsupportedModelError(
                f"{self._origin}: tensor {key} is stored as {weight.dtype}; "
                f"supported: {', '.join(_FLOAT_TYPES)}"
            )
        self._taken.add(key)
        return weight

    def finish(self) -> None:
        """Raise CheckpointError when a tensor was not taken: it would have been ignored."""
        left = sorted(set(self._tensors) - self._taken)
        if left:
            shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
            raise CheckpointError(f"{self._origin}: unknown tensors: {shown}")

    def _prefixed(self, key: str) -> str:
        """For the message: the name that ends in ``key``, where what saved the model wrapped it."""
        found = next((name for name in self._tensors if name.endswith(f".{key}")), None)
        if found is None:
            return ""
        prefix = found.removesuffix(key)
        return f", but {found} is there: give --prefix {prefix}"

    def _find(self, key: str) -> Weight:
        if key not in self._tensors:
            raise CheckpointError(f"{self._origin}: tensor {key} is missing{self._prefixed(key)}")
        return self._tensors[key]
