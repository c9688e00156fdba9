"""The last step of a sequence, for ``--logits last``."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter


def last_step(g: Emitter, x: ir.Value, lengths: ir.Value | None) -> ir.Value:
    """The last step of x [B,T,D] as [B,1,D]; per row, step lengths[b] - 1 where given."""
    if lengths is None:
        return g.op("Gather", x, g.ints(-1), axis=1, role="last_step")
    steps = g.op("Cast", lengths, to=int(ir.DataType.INT64))
    time = g.op("Shape", x, start=1, end=2)
    steps = g.op("Where", g.op("Less", steps, g.ints(0)), time, g.op("Min", steps, time))
    index = g.op("Max", g.op("Sub", steps, g.ints(1)), g.ints(0))
    return g.op("GatherND", x, g.reshape(index, -1, 1, 1), batch_dims=1, role="last_step")
