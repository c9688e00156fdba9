"""A series cut into patches, with the mask of what is there."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.patches import Patches


def emit(g: Emitter, x: ir.Value, layer: Patches, place: Place) -> ir.Value:
    """x [B,L] float32 to float32 tokens [B,L/size,2*size]; infinity is the largest number."""
    largest = float(np.finfo(np.float32).max)
    with g.within(place.scope):
        by_patch = g.reshape(x, 0, -1, layer.size)
        missing = g.op("IsNaN", by_patch)
        known = g.op("Where", missing, g.constant(0.0, "float32"), by_patch)
        values = g.op(
            "Clip", known, g.constant(-largest, "float32"), g.constant(largest, "float32")
        )
        mask = g.op("Cast", g.op("Not", missing), to=int(ir.DataType.FLOAT), role="mask")
        return g.is_float32(g.op("Concat", values, mask, axis=-1))
