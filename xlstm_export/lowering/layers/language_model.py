"""Both ends of a language model: token embedding and logits."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.weights import Weights


def embedding(g: Emitter, ids: ir.Value, weights: Weights) -> ir.Value:
    """ids [B,T] to [B,T,D]."""
    table = g.weight("embedding.weight", weights["embedding.weight"])
    return g.op("Gather", table, ids, axis=0, role="embedding")


def last_step(g: Emitter, x: ir.Value, lengths: ir.Value | None) -> ir.Value:
    """The last step of x [B,T,D] as [B,1,D]; per row, step lengths[b] - 1 where given."""
    if lengths is None:
        return g.op("Gather", x, g.ints(-1), axis=1, role="last_step")
    steps = g.op("Cast", lengths, to=int(ir.DataType.INT64))
    time = g.op("Shape", x, start=1, end=2)
    steps = g.op("Where", g.op("Less", steps, g.ints(0)), time, g.op("Min", steps, time))
    index = g.op("Max", g.op("Sub", steps, g.ints(1)), g.ints(0))
    return g.op("GatherND", x, g.reshape(index, -1, 1, 1), batch_dims=1, role="last_step")


def logits(g: Emitter, x: ir.Value, spec: ModelSpec, weights: Weights) -> ir.Value:
    """x [B,T,D] to float32 logits [B,T,vocab], soft-capped to cap*tanh(x/cap) where asked."""
    if spec.tied_head:
        table = g.weight("embedding.weight", weights["embedding.weight"])
        matrix = g.op("Transpose", table, perm=[1, 0], role="head.transpose")
    else:
        matrix = g.weight("head.weight", weights["head.weight"].with_view(lambda w: w.T))
    y = g.op("MatMul", x, matrix, role="head")
    if "head.bias" in weights:
        y = g.op("Add", y, g.weight("head.bias", weights["head.bias"]))
    y = g.cast(y, "float32")
    if spec.logit_soft_cap > 0:
        cap = g.constant(spec.logit_soft_cap, "float32")
        y = g.op("Mul", g.op("Tanh", g.op("Div", y, cap)), cap)
    return y
