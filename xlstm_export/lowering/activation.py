"""Activations of the feed-forward networks, in operators of opset 18."""

from __future__ import annotations

import math

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.model.layers.feed_forward import Activation


def silu(g: Emitter, x: ir.Value) -> ir.Value:
    """x sigmoid(x)."""
    return g.op("Mul", x, g.op("Sigmoid", x))


def gelu(g: Emitter, x: ir.Value) -> ir.Value:
    """x (1 + erf(x / sqrt 2)) / 2, the exact form; opset 20 has it as one operator."""
    scaled = g.op("Div", x, g.constant(math.sqrt(2.0), g.dtype))
    shifted = g.op("Add", g.op("Erf", scaled), g.constant(1.0, g.dtype))
    return g.op("Mul", g.op("Mul", x, shifted), g.constant(0.5, g.dtype))


def activate(g: Emitter, x: ir.Value, kind: Activation) -> ir.Value:
    """The activation ``kind`` of x, elementwise."""
    if kind == "swish":
        return silu(g, x)
    if kind == "gelu":
        return gelu(g, x)
    if kind == "relu^2":
        positive = g.op("Relu", x)
        return g.op("Mul", positive, positive)
    if kind == "selu":  # not defined for bfloat16 before opset 22
        return g.cast(g.op("Selu", g.cast(x, "float32")), g.dtype)
    return g.op({"relu": "Relu", "sigmoid": "Sigmoid"}[kind], x)
