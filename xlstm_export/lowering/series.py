"""Statistics of series with missing values, which every forecaster's front needs."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter


@dataclass(frozen=True)
class Series:
    """Series [...,T] float32 along the last axis: what is there, and how many values that are."""

    g: Emitter
    x: ir.Value
    missing: ir.Value
    count: ir.Value

    def total(self, values: ir.Value) -> ir.Value:
        """Sum [...,1] of ``values`` [...,T], which are 0 where something is missing."""
        return self.g.op("ReduceSum", values, self.g.ints(-1), keepdims=1)

    def mean(self, values: ir.Value) -> ir.Value:
        """Mean over what is there, 0 where nothing is."""
        divisor = self.g.op("Max", self.count, self.g.constant(1.0, "float32"))
        return self.g.op("Div", self.total(values), divisor)

    def there(self, values: ir.Value) -> ir.Value:
        """``values``, 0 where something is missing."""
        return self.g.op("Where", self.missing, self.g.constant(0.0, "float32"), values)

    def centred(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Mean [...,1], and (distances from it) / unit [...,T] with the unit [...,1].

        The mean of the distances from a first mean is added to that, so that a constant series has
        none; and the unit is the largest distance, or 1 without one, so that no square overflows.
        """
        g = self.g
        first = self.mean(self.there(self.x))
        loc = g.op("Add", first, self.mean(self.there(g.op("Sub", self.x, first))))
        away = self.there(g.op("Sub", self.x, loc))
        farthest = g.op("ReduceMax", g.op("Abs", away), g.ints(-1), keepdims=1)
        zero, one = g.constant(0.0, "float32"), g.constant(1.0, "float32")
        unit = g.op("Where", g.op("Greater", farthest, zero), farthest, one)
        return loc, g.op("Div", away, unit), unit


def series(g: Emitter, x: ir.Value) -> Series:
    """``x`` float32 [...,T], NaN where a value is missing."""
    missing = g.op("IsNaN", x)
    present = g.op("Cast", g.op("Not", missing), to=int(ir.DataType.FLOAT))
    return Series(g, x, missing, g.op("ReduceSum", present, g.ints(-1), keepdims=1))
