"""Gated feed-forward network: down(act(gate(x)) * up(x))."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.layers.activation import activate
from xlstm_export.lowering.layers.linear import linear
from xlstm_export.model.spec import FeedForward
from xlstm_export.model.weights import Weights


def feed_forward(g: Emitter, x: ir.Value, spec: FeedForward, weights: Weights) -> ir.Value:
    """x [B,T,D] to [B,T,D]; gate and up are one MatMul."""
    gate, up = linear(g, x, weights, ("gate", "up"), g.dtype)
    hidden = g.op("Mul", activate(g, gate, spec.activation), up)
    return linear(g, hidden, weights, ("down",), g.dtype)[0]
