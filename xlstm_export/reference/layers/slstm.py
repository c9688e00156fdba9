"""The sLSTM of the block stack (xLSTM paper, Beck et al. 2024, fig. 10)."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.ops.reference import slstm, to_bfloat16
from xlstm_export.reference.cells import causal_conv
from xlstm_export.reference.place import ALL_STEPS, Place, by_head


def evaluate(normed: Tensor, layer: SLSTM, place: Place) -> Tensor:
    """normed [B,T,D], in the state type, to [B,T,D]."""
    x = normed.to(place.x_type)
    conv = causal_conv(x, place) if layer.conv_width else x
    slots = {"input_gate": conv, "forget_gate": conv, "cell_input": x, "output_gate": x}
    gates = [
        by_head(place.block_diagonal(source, slot), layer.heads) for slot, source in slots.items()
    ]
    y, c, n, m = place.take("slstm", "ycnm")
    R = place["R.weight"]
    (stacked,) = place.tap("XlstmSLSTM", ["gates"], [torch.stack(gates, dim=2).to(place.s_type)])
    y_all, *states = slstm(
        stacked,
        to_bfloat16(R) if layer.state_rounding else R, place["R.bias"],
        y, c, n, m, ALL_STEPS,
        n_floor=layer.n_floor, f_clamp=layer.f_clamp, state_rounding=layer.state_rounding,
    )  # fmt: skip
    place.give("slstm", "ycnm", states)
    (y_all,) = place.tap("XlstmSLSTM", ["y_all"], [y_all])
    return place.head_norm(y_all, layer.head_norm_eps)
