"""Causal convolution with SiLU around ``XlstmCausalConv1d``."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.layers.state_io import StateIO
from xlstm_export.model.weights import Weights


def causal_conv(g: Emitter, x: ir.Value, weights: Weights, layer: int, states: StateIO) -> ir.Value:
    """silu(conv(x)) [B,T,D]; the last W-1 inputs are carried."""
    weight = g.weight(f"{g.scope}/conv.weight", weights["conv.weight"])
    bias = g.weight(f"{g.scope}/conv.bias", weights["conv.bias"], "float32")
    past = states.take(layer, "conv", "x")
    y, present = g.custom(
        "XlstmCausalConv1d", [x, weight, bias, *past, states.lengths], activation=1
    )
    states.give(layer, "conv", "x", [present])
    return y
