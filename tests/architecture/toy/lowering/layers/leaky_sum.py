"""The sum as a Scan over time."""

from __future__ import annotations

import onnx_ir as ir

from tests.architecture.toy.model.layers.leaky_sum import LeakySum
from xlstm_export.lowering.emit import Emitter, ir_type
from xlstm_export.lowering.place import Place


def emit(g: Emitter, x: ir.Value, layer: LeakySum, place: Place) -> ir.Value:
    """x [B,T,D] to [B,T,D]."""
    with g.within(place.scope):
        scale = g.weight(f"{g.scope}/scale", place.weights["scale"])
        decay = g.weight(f"{g.scope}/decay", place.weights["decay"])
        scaled = g.cast(g.op("Mul", g.cast(x, g.dtype), scale), "float32")
        (past,) = place.take(g, "leaky", "y")
        body = _body(decay, layer.model_size)
        last, steps = g.ops(
            "Scan", past, scaled, outputs=2, body=body, num_scan_inputs=1,
            scan_input_axes=[1], scan_output_axes=[1],
        )  # fmt: skip
        place.give("leaky", "y", [last])
        return g.cast(steps, g.dtype)


def _body(decay: ir.Value, size: int) -> ir.Graph:
    """One step: y' = decay y + x; y' goes on and comes out."""
    kind, shape = ir.TensorType(ir_type("float32")), ir.Shape(("batch", size))
    y, x = (ir.Value(name=name, type=kind, shape=shape) for name in ("toy_y", "toy_x"))
    tape = ir.tape.Tape()
    new = tape.op("Add", [tape.op("Mul", [y, decay]), x])
    out = tape.op("Identity", [new])
    for value, name in ((new, "toy_new"), (out, "toy_out")):
        value.name, value.type, value.shape = name, kind, shape
    tape.nodes[0].outputs[0].name = "toy_kept"
    return ir.Graph([y, x], [new, out], nodes=tape.nodes, name="leaky_sum")
