"""The norm of each head by itself, which every mixer ends in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.model.weights import Weights


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
            y = g.op(op_type, y, g.weight(f"{g.scope}/head_norm.{leaf}", weight))
    return g.cast(y, g.dtype)
