"""Causal convolution with SiLU around ``XlstmCausalConv1d``."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place


def causal_conv(g: Emitter, x: ir.Value, place: Place) -> ir.Value:
    """silu(conv(x)) [B,T,D]; the last W-1 inputs are carried."""
    weight = g.weight(f"{g.scope}/conv.weight", place.weights["conv.weight"])
    bias = g.weight(f"{g.scope}/conv.bias", place.weights["conv.bias"])
    past = place.take(g, "conv", "x")
    y, present = g.custom(
        "XlstmCausalConv1d", [x, weight, bias, *past, place.lengths], activation=1
    )
    place.give("conv", "x", [present])
    return y
