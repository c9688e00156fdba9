"""Images to patches."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from xlstm_export.model.layers.patch_convolution import PatchConvolution
from xlstm_export.reference.place import Place


def evaluate(images: Tensor, layer: PatchConvolution, place: Place) -> Tensor:
    """images [B,C,H,W] to [B,T,D]."""
    y = F.conv2d(images, place["weight"], place["bias"], stride=layer.stride)
    return y.flatten(2).transpose(1, 2)
