"""Rows of several series, see ``model.variates``: where they are in a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.model.variates import CONTEXT

END = np.iinfo(np.int64).max
"""A Slice up to it takes all that is left."""


def variates_of(g: Emitter, place: Place, name: str) -> ir.Value:
    """How many variates the input ``name`` has: int64 [1]."""
    return g.op("Shape", place.input(name), start=1, end=2, role=f"{name}.variates")


def rows_of(g: Emitter, place: Place, name: str) -> ir.Value:
    """How many rows those of the input ``name`` are: int64 [1]."""
    batch = g.op("Shape", place.input(CONTEXT), start=0, end=1, role="batch")
    return g.op("Mul", batch, variates_of(g, place, name))


def part(
    g: Emitter, x: ir.Value, start: ir.Value | int, end: ir.Value | int, axis: int
) -> ir.Value:
    """x from ``start`` to ``end`` along ``axis``; both as int64 [1] or as numbers."""
    bounds = [b if isinstance(b, ir.Value) else g.ints(b) for b in (start, end)]
    return g.op("Slice", x, *bounds, g.ints(axis))


def flip(g: Emitter, x: ir.Value) -> ir.Value:
    """x [R,T,...] with its steps in reverse."""
    return g.op("Slice", x, g.ints(-1), g.ints(-END), g.ints(1), g.ints(-1), role="flip")
