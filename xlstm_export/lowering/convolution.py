"""A standard convolution over images."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.model.weights import Weight


def convolve(
    g: Emitter, x: ir.Value, weight: Weight, bias: Weight, name: str, **attributes: Any
) -> ir.Value:
    """Conv of x [B,C,H,W], its weights stored below ``name``; over float32 in a bfloat16 bundle.

    (Conv takes no bfloat16 before opset 22.)
    """
    operands = [x, g.weight(f"{name}.weight", weight), g.weight(f"{name}.bias", bias)]
    if g.dtype == "bfloat16":
        operands = [g.cast(operand, "float32") for operand in operands]
    y = g.op("Conv", *operands, role="conv", **attributes)
    return g.cast(y, g.dtype) if g.dtype == "bfloat16" else y
