"""How a model is compared: whole, or in parts that follow each other, by the memory there is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from xlstm_export.errors import OptionError
from xlstm_export.lowering.options import parse_size
from xlstm_export.model.layer import leaves, result_name
from xlstm_export.model.spec import ModelSpec, own_weights
from xlstm_export.model.weights import Weight, count_parameters
from xlstm_export.validation.checks.rollout import BASELINE_ROWS
from xlstm_export.validation.participants import Both

_BYTES = 32
"""Of memory for each parameter: twice float64, torch and the bundle's runtime in their precision,
and what loading takes on top."""
_REST = 5 * 2**28
"""Of memory for programs and the numbers that are compared."""


@dataclass(frozen=True)
class Part:
    """Layers that are compared together; ``before`` is the ``result_name`` of the one before them,
    "" at the beginning.
    """

    spec: ModelSpec
    before: str

    @property
    def name(self) -> str:
        """The path of the first layer, and of the last where it is another."""
        paths = [path for path, _ in self.spec.layers]
        return paths[0] if len(paths) == 1 else f"{paths[0]} to {paths[-1]}"


@dataclass(frozen=True)
class Division:
    """``parts`` of a model, none where it is compared whole, and bytes of memory of either way."""

    parts: tuple[Part, ...]
    whole_bytes: int
    part_bytes: int

    @property
    def words(self) -> str:
        """For the report."""
        return (
            f"compared layer by layer, in {len(self.parts)} parts that were loaded one after the "
            f"other: some {self.part_bytes / 2**30:.1f} GiB of memory, where the whole model takes "
            f"some {self.whole_bytes / 2**30:.1f} GiB"
        )


def parse_memory(given: str | int | None) -> int | None:
    """Bytes of a size as ``parse_size`` takes it, None for None. Raises OptionError."""
    return None if given is None else parse_size(given, "memory")


def divide(both: Both, limit: int | None) -> Division:
    """Whole where that fits into ``limit`` bytes (None: what is available), else in parts.

    Raises OptionError where neither fits.
    """
    spec, weights = both.checkpoint.spec, both.checkpoint.weights
    whole = _bytes(spec, weights.values())
    allowed = psutil.virtual_memory().available if limit is None else limit
    if whole <= allowed or (limit is None and not _is_separable(both)):
        return Division((), whole, whole)
    if not _is_separable(both):
        raise OptionError(
            "memory", f"the model is compared as a whole, which takes some {_gib(whole)}"
        )
    parts = tuple(parts_of(spec))
    part = max(_bytes(p.spec, own_weights(p.spec, weights).values()) for p in parts)
    if limit is not None and part > limit:
        raise OptionError(
            "memory", f"the largest part of the model takes some {_gib(part)}: allow that much"
        )
    return Division(parts, whole, part)


def parts_of(spec: ModelSpec) -> list[Part]:
    """The parts of a model of sequences.

    One begins at each layer with states, as upstream's blocks do, and at the first of the layers
    at the end that treat every step by itself: what comes there has the type of activations.
    """
    layers, end = spec.layers, len(spec.layers)
    while end and layers[end - 1][1].pointwise:
        end -= 1
    starts = [
        index
        for index, (path, layer) in enumerate(layers)
        if index in (0, end) or any(inner.states() for _, inner in leaves(path, layer))
    ]
    stops = [*starts[1:], len(layers)]
    return [
        Part(spec.part(start, stop), result_name(*layers[start - 1]) if start else "")
        for start, stop in zip(starts, stops, strict=True)
    ]


def _is_separable(both: Both) -> bool:
    """Whether layer follows layer, and ONNX Runtime runs them."""
    spec = both.checkpoint.spec
    follows = spec.has_sequence and spec.recurrence == "carried"
    return follows and both.execution.engine is None


def _bytes(spec: ModelSpec, weights: Iterable[Weight]) -> int:
    states = sum(math.prod(s.sizes) for _, layer in spec.leaves() for s in layer.states())
    return _BYTES * (count_parameters(weights) + states * (BASELINE_ROWS + 2)) + _REST


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g} GiB"
