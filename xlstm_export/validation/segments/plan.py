"""How a model is compared: whole, or in parts that follow each other, by the memory there is."""

from __future__ import annotations

from xlstm_export.model.layer import leaves
from xlstm_export.model.spec import ModelSpec


def segments(spec: ModelSpec) -> list[tuple[int, int]]:
    """Where a model of sequences is cut: first and last but one of the layers of each part.

    A part begins at each layer with states, as upstream's blocks do, and at the first of the
    layers at the end that treat every step by itself: what comes before has the activations' type.
    """
    end = len(spec.layers)
    while end and spec.layers[end - 1][1].pointwise:
        end -= 1
    starts = [
        index
        for index, (path, layer) in enumerate(spec.layers)
        if index in (0, end) or any(part.states() for _, part in leaves(path, layer))
    ]
    return list(zip(starts, [*starts[1:], len(spec.layers)], strict=True))
