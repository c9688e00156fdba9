"""Norms: statistics and affine part in float32, spelled so that runtimes recognise them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.model.spec import Norm
from xlstm_export.model.weights import Weights


def norm(g: Emitter, x: ir.Value, spec: Norm, weights: Weights, path: str) -> ir.Value:
    """Norm of x [B,T,D] over D, in float32 (cast down by the caller where it feeds a MatMul).

    rms: x / sqrt(mean(x^2) + eps) * w (+ b), the pattern ONNX Runtime fuses.
    """
    x = g.cast(x, "float32")
    name = f"{g.scope}/{path}"
    weight = g.weight(f"{name}.weight", weights[f"{path}.weight"], "float32")
    bias = weights.get(f"{path}.bias")
    if spec.kind == "layer":
        operands = [weight] if bias is None else [weight, g.weight(f"{name}.bias", bias, "float32")]
        return g.op("LayerNormalization", x, *operands, axis=-1, epsilon=spec.eps, role=path)
    squared = g.op("Pow", x, g.constant(2.0, "float32"))
    mean = g.op("ReduceMean", squared, g.ints(-1), keepdims=1)
    root = g.op("Sqrt", g.op("Add", mean, g.constant(spec.eps, "float32")))
    y = g.op("Mul", g.op("Div", x, root), weight, role=path)
    return y if bias is None else g.op("Add", y, g.weight(f"{name}.bias", bias, "float32"))


def head_norm(
    g: Emitter, h: ir.Value, heads: int, size: int, eps: float, weights: Weights
) -> ir.Value:
    """LayerNorm of each head of h [B,T,N,V] over V, then one affine over [B,T,N*V].

    Weights ``head_norm.weight`` and ``head_norm.bias`` [N*V], each optional.
    """
    ones = g.array(f"const_ones_{size}", np.ones(size, np.float32))
    y = g.op("LayerNormalization", g.cast(h, "float32"), ones, axis=-1, epsilon=eps)
    y = g.reshape(y, 0, 0, heads * size)
    for leaf, op_type in (("weight", "Mul"), ("bias", "Add")):
        weight = weights.get(f"head_norm.{leaf}")
        if weight is not None:
            y = g.op(op_type, y, g.weight(f"{g.scope}/head_norm.{leaf}", weight, "float32"))
    return g.cast(y, g.dtype)
