"""Tensors that a TiRex-2 has under several names, of which a file may hold any."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from xlstm_export.errors import CheckpointError
from xlstm_export.model.weights import Weight

_ALIASES = (
    (r"\.time_mixer\.rev_cell\.", ".time_mixer.fwd_cell."),  # one cell runs both ways
    (r"\.fwd_cell\.recurrent_kernel$", ".fwd_cell._recurrent_kernel_"),
    (r"\.fwd_cell\.bias$", ".fwd_cell._bias_"),
)


def without_aliases(tensors: Mapping[str, Weight]) -> dict[str, Weight]:
    """``tensors``, each under one name and once; its source is the name it is stored by.

    Raises CheckpointError where two names of one tensor hold different numbers.
    """
    found: dict[str, Weight] = {}
    for name, weight in tensors.items():
        first = found.setdefault(_plain(name), weight)
        if first is not weight and not _equal(first, weight):
            raise CheckpointError(
                f"{weight.origin}: tensors {', '.join(first.sources)} and {name} differ, but are "
                "one tensor of a TiRex-2"
            )
    return found


def _plain(name: str) -> str:
    for pattern, plain in _ALIASES:
        name = re.sub(pattern, plain, name)
    return name


def _equal(first: Weight, second: Weight) -> bool:
    return first.shape == second.shape and np.array_equal(first.load(), second.load())
