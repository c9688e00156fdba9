"""Which weights of a model are stored in few bits, and what that makes of its size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from xlstm_export.bundle.low_bit import LowBit
from xlstm_export.errors import OptionError
from xlstm_export.model.blocks import block_count
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.storage import Storage
from xlstm_export.model.weights import Weight, Weights


def candidates(spec: ModelSpec, weights: Weights) -> list[str]:
    """Names of the weights that can be stored in few bits."""
    return [n for n, s in spec.weights().items() if s.low_bit != "never" and n in weights]


def resolved(spec: ModelSpec, weights: Weights, low_bit: LowBit) -> LowBit:
    """``low_bit`` with names in place of the patterns in ``wide``.

    Weights that are parts of one tensor of the checkpoint are kept alike, so that upstream's module
    can be given the same numbers. Raises OptionError for a pattern that names none, and where the
    model has nothing to store in few bits.
    """
    names = candidates(spec, weights)
    if not names:
        raise OptionError("weight_format", f"{spec.family}: no projections, tables or heads")
    chosen: set[str] = set()
    for pattern in low_bit.wide:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            some = ", ".join(names[:3])
            raise OptionError("keep_wide", f"{pattern} names no weight; they are {some}, …")
        chosen |= found
    return replace(low_bit, wide=with_siblings(names, weights, chosen))


def with_siblings(names: list[str], weights: Weights, chosen: set[str]) -> tuple[str, ...]:
    """``chosen`` and those of ``names`` that are parts of the same tensors, in order."""
    keys = {key for name in chosen for key in weights[name].sources}
    return tuple(n for n in names if n in chosen or not keys.isdisjoint(weights[n].sources))


def stored_bytes(weight: Weight) -> int:
    """Bytes of ``weight`` as it is kept, scales and zero points counted."""
    width = Storage(weight.kept).numpy.itemsize
    if weight.blocks is None:
        return math.prod(weight.shape) * width
    out, inputs = weight.shape
    bits, count = weight.blocks.bits, block_count(inputs, weight.blocks.size)
    zeros = 0 if weight.blocks.symmetric else out * count * bits // 8
    return out * inputs * bits // 8 + out * count * width + zeros


def step_bytes(spec: ModelSpec, kept: Mapping[str, Weight]) -> int:
    """Bytes of weights that one step reads: all but those of tables that are looked up only."""
    tied = {f"{head.tied_to}.weight" for head in spec.layers_of(LogitHead)}
    tables = {n for n, s in spec.weights().items() if s.low_bit == "table"} - tied
    return sum(stored_bytes(weight) for name, weight in kept.items() if name not in tables)
