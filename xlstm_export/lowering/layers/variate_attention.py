"""Attention between series."""

from __future__ import annotations

import math

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.linear import linear
from xlstm_export.lowering.place import Place
from xlstm_export.lowering.variates import part
from xlstm_export.model.layers.variate_attention import VariateAttention

_HIDDEN = -1e30
"""A score that is nothing after the softmax; every row sees at least itself."""


def emit(g: Emitter, normed: ir.Value, layer: VariateAttention, place: Place) -> ir.Value:
    """normed [B,T,V,D] float32 to [B,T,V,D]; the softmax is in float32."""
    with g.within(place.scope):
        x = g.cast(normed, g.dtype)
        q, k, v = (_heads(g, y, layer) for y in linear(g, x, place.weights, ("q", "k", "v")))
        if layer.normed:
            q, k = _normed(g, q, layer.eps), _normed(g, k, layer.eps)
        products = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 2, 4, 3]))
        scale = 1 / math.sqrt(layer.model_size // layer.heads)
        scores = g.op("Mul", g.cast(products, "float32"), g.constant(scale, "float32"))
        (sees,) = place.given(layer.variates, "variates", "s")
        sees = part(g, sees, 0, g.op("Shape", x, start=0, end=1, role="batch"), 0)
        scores = g.op("Where", sees, scores, g.constant(_HIDDEN, "float32"), role="seen")
        h = g.op("MatMul", g.cast(g.op("Softmax", scores, axis=-1), g.dtype), v)
        h = g.op("Transpose", h, perm=[0, 1, 3, 2, 4])
        return linear(g, g.reshape(h, 0, 0, 0, layer.model_size), place.weights, ("out",))[0]


def _heads(g: Emitter, x: ir.Value, layer: VariateAttention) -> ir.Value:
    """x [B,T,V,D] as [B,T,N,V,D/N]."""
    size = layer.model_size // layer.heads
    return g.op("Transpose", g.reshape(x, 0, 0, 0, layer.heads, size), perm=[0, 1, 3, 2, 4])


def _normed(g: Emitter, x: ir.Value, eps: float) -> ir.Value:
    """x / sqrt(mean(x^2) + eps) over the last axis, computed in float32."""
    wide = g.cast(x, "float32")
    mean = g.op("ReduceMean", g.op("Mul", wide, wide), g.ints(-1), keepdims=1)
    root = g.op("Sqrt", g.op("Add", mean, g.constant(eps, "float32")))
    return g.cast(g.op("Div", wide, root), g.dtype)
