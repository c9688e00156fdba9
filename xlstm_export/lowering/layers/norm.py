"""Norms: statistics and affine part in float32, spelled so that runtimes recognise them."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.norm import Norm


def emit(g: Emitter, x: ir.Value, layer: Norm, place: Place) -> ir.Value:
    """Norm of x [B,T,D] over D, in float32 (cast down by whoever feeds a MatMul).

    rms: x / sqrt(mean(x^2) + eps) * w (+ b), the pattern ONNX Runtime fuses.
    """
    with g.within(place.outer_scope):
        return g.is_float32(_norm(g, g.cast(x, "float32"), layer, place))


def _norm(g: Emitter, x: ir.Value, layer: Norm, place: Place) -> ir.Value:
    weight = g.weight(f"{place.scope}.weight", place.weights["weight"])
    bias = place.weights.get("bias")
    if layer.kind == "layer":
        operands = [weight] if bias is None else [weight, g.weight(f"{place.scope}.bias", bias)]
        return g.op("LayerNormalization", x, *operands, axis=-1, epsilon=layer.eps, role=place.name)
    squared = g.op("Pow", x, g.constant(2.0, "float32"))
    mean = g.op("ReduceMean", squared, g.ints(-1), keepdims=1)
    root = g.op("Sqrt", g.op("Add", mean, g.constant(layer.eps, "float32")))
    y = g.op("Mul", g.op("Div", x, root), weight, role=place.name)
    return y if bias is None else g.op("Add", y, g.weight(f"{place.scope}.bias", bias))
