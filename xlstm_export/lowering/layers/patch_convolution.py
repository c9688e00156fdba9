"""Images to patches: a Conv, its result row by row."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.lowering.convolution import convolve
from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.patch_convolution import PatchConvolution


def emit(g: Emitter, images: ir.Value, layer: PatchConvolution, place: Place) -> ir.Value:
    """images [B,C,H,W] to [B,T,D]."""
    with g.within(place.scope):
        weight, bias = place.weights["weight"], place.weights["bias"]
        y = convolve(g, images, weight, bias, place.path, strides=layer.stride)
        return g.op("Transpose", g.reshape(y, 0, 0, -1), perm=[0, 2, 1])
