"""The convolution over a grid of patches."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.convolution import convolve
from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place


def grid_conv(g: Emitter, x: ir.Value, grid: tuple[int, int], width: int, place: Place) -> ir.Value:
    """conv(x) [B,T,D], each channel by itself over the ``grid`` that T is, centred."""
    weight, bias = place.weights["conv.weight"], place.weights["conv.bias"]
    image = g.reshape(g.op("Transpose", x, perm=[0, 2, 1]), 0, 0, *grid)
    pads = [width // 2] * 4
    y = convolve(g, image, weight, bias, f"{g.scope}/conv", group=weight.shape[0], pads=pads)
    return g.op("Transpose", g.reshape(y, 0, 0, -1), perm=[0, 2, 1])
