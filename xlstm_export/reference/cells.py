"""The recurrent operators and convolutions at the place of a layer, with its states."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from xlstm_export.model.layers.mlstm import MLSTMCell
from xlstm_export.ops.reference import causal_conv1d
from xlstm_export.reference.place import ALL_STEPS, Place, by_head


def mlstm_cell(
    q: Tensor, k: Tensor, v: Tensor, gates: tuple[Tensor, Tensor], cell: MLSTMCell, place: Place
) -> Tensor:
    """h [B,T,N,V] from q, k, v [B,T,N*size] and gates [B,T,N]."""
    q, k, v = (by_head(x, cell.heads) for x in (q, k, v))
    q, k, v, i, f = place.tap("XlstmMLSTM", "qkvif", (q, k, v, *gates))
    h, *states = place.mlstm(
        q, k, v, i, f, *place.take("mlstm", "Cnm"), ALL_STEPS,
        gate_soft_cap=cell.gate_soft_cap, eps=cell.eps,
        scale_side=cell.scale_side, chunk_size=cell.chunk_size,
    )  # fmt: skip
    place.give("mlstm", "Cnm", states)
    return place.tap("XlstmMLSTM", "h", (h,))[0]


def causal_conv(x: Tensor, place: Place) -> Tensor:
    """silu(conv(x)) [B,T,D]."""
    weight, bias = place["conv.weight"], place["conv.bias"]
    (window,) = place.take("conv", "x")
    (x,) = place.tap("XlstmCausalConv1d", "x", (x,))
    y, state = causal_conv1d(x, weight, bias, window, ALL_STEPS, activation=1)
    place.give("conv", "x", [state])
    return place.tap("XlstmCausalConv1d", "y", (y,))[0]


def grid_conv(x: Tensor, grid: tuple[int, int], place: Place) -> Tensor:
    """conv(x) [B,T,D], each channel by itself over the ``grid`` that T is, centred."""
    weight = place["conv.weight"]
    image = x.transpose(1, 2).reshape(x.shape[0], -1, *grid)
    pads = [size // 2 for size in weight.shape[2:]]
    y = F.conv2d(image, weight, place["conv.bias"], padding=pads, groups=x.shape[-1])
    return y.flatten(2).transpose(1, 2)
