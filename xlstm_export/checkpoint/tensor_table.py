"""Taking tensors out of a checkpoint by name, so that nothing is missing and nothing is ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.model.layer import Layer
from xlstm_export.model.weights import Array, Weight

View = Callable[[Array], Array]

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

    def size(self, what: str, *places: tuple[str, int] | tuple[str, int, int]) -> int:
        """The size that all ``places`` (key, axis, times) agree on, ``what`` in messages.

        A fused tensor holds the size several ``times`` (1 unless given) along its axis. Keys that
        are not there are left out. Raises CheckpointError that names those which differ from the
        rest, or that none is there.
        """
        there = [place for place in places if place[0] in self._tensors]
        if not there:
            self._find(places[0][0])
        found: dict[int, list[str]] = {}
        for key, axis, *times in there:
            shape, parts = self._tensors[key].shape, times[0] if times else 1
            if axis >= len(shape) or shape[axis] % parts:
                whole = f", which is not {parts} of one {what}" if axis < len(shape) else ""
                raise CheckpointError(
                    f"{self._origin}: tensor {key} has shape {list(shape)}{whole}"
                )
            found.setdefault(shape[axis] // parts, []).append(f"{key} {list(shape)}")
        by_votes = sorted(found.items(), key=lambda entry: -len(entry[1]))
        if len(found) == 1:
            return by_votes[0][0]
        (most, _), *others = by_votes
        wrong = ", ".join(name for _, names in others for name in names)
        raise CheckpointError(
            f"{self._origin}: tensors disagree on the {what}: {wrong}, where "
            f"{', '.join(found[most][:3])} say {most}; was one of them cut or replaced?"
        )

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


class LayerTensors:
    """The weights of one layer, taken out of a table in the shapes that the layer says."""

    def __init__(self, table: TensorTable, layer: Layer) -> None:
        self._table = table
        self._specs = layer.weights()
        self.weights: dict[str, Weight] = {}

    def take(
        self, name: str, key: str, stored: tuple[int, ...] | None = None, view: View | None = None
    ) -> None:
        """The layer's ``name`` from tensor ``key``, of shape ``stored`` before ``view``."""
        weight = self._table.take(key, *(stored or self._specs[name].shape))
        self.weights[name] = weight if view is None else weight.with_view(view)

    def take_norm(self, name: str, key: str) -> None:
        """The layer's ``name`` from a tensor that is stored as its distance from one."""
        self.weights[name] = self._table.take(key, *self._specs[name].shape).with_offset(1.0)

    def split(self, names: Sequence[str], key: str) -> None:
        """Several ``names`` from consecutive rows of the tensor ``key``."""
        rows = [self._specs[name].shape[0] for name in names]
        fused = self._table.take(key, sum(rows), *self._specs[names[0]].shape[1:])
        start = 0
        for name, count in zip(names, rows, strict=True):
            part = slice(start, start + count)
            self.weights[name] = fused.with_view(partial(_rows, part=part))
            start += count


def _rows(array: Array, part: slice) -> Array:
    return array[part]


def placed(path: str, weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """``weights`` of the layer at ``path`` under their full names."""
    return {f"{path}.{name}": weight for name, weight in weights.items()}
