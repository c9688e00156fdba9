"""The sLSTM mixer around ``XlstmSLSTM``.

x ─ conv+silu ─ i,f ─┐
 └───────────── z,o ─ sLSTM ─ head norm
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.layers.conv import causal_conv
from xlstm_export.lowering.layers.norm import head_norm
from xlstm_export.lowering.layers.state_io import StateIO
from xlstm_export.model.spec import SLSTMMixer
from xlstm_export.model.weights import Weights, concatenate

_CONVOLVED = ("input_gate", "forget_gate")
_PLAIN = ("cell_input", "output_gate")


def slstm_mixer(
    g: Emitter, normed: ir.Value, mixer: SLSTMMixer, weights: Weights, layer: int, states: StateIO
) -> ir.Value:
    """normed [B,T,D] float32 to [B,T,D]."""
    x = g.cast(normed, g.dtype)
    if mixer.conv_width > 0:
        conv = causal_conv(g, x, weights, layer, states)
        parts = [_gates(g, conv, mixer, weights, _CONVOLVED), _gates(g, x, mixer, weights, _PLAIN)]
        gates = g.op("Concat", *parts, axis=2)
    else:
        gates = _gates(g, x, mixer, weights, _CONVOLVED + _PLAIN)
    past = states.take(layer, "slstm", "ycnm")
    y_all, *present = g.custom(
        "XlstmSLSTM",
        [
            g.cast(gates, "float32"),
            g.weight(f"{g.scope}/R.weight", weights["R.weight"]),
            g.weight(f"{g.scope}/R.bias", weights["R.bias"], "float32"),
            *past,
            states.lengths,
        ],
        n_floor=mixer.n_floor,
        f_clamp=mixer.f_clamp,
        state_rounding=mixer.state_rounding,
    )
    states.give(layer, "slstm", "ycnm", present)
    return head_norm(g, y_all, mixer.heads, mixer.head_size, mixer.head_norm_eps, weights)


def _gates(
    g: Emitter, x: ir.Value, mixer: SLSTMMixer, weights: Weights, names: Sequence[str]
) -> ir.Value:
    """Headwise projections of x [B,T,D] as one batched MatMul: [B,T,len(names),N,H]."""
    size = mixer.head_size
    matrices = [
        weights[f"{name}.weight"].with_view(lambda w: w.transpose(0, 2, 1)) for name in names
    ]
    name = "_".join(names)
    matrix = g.weight(f"{g.scope}/{name}.weight", concatenate(matrices, axis=2))
    by_head = g.op("Transpose", g.reshape(x, 0, 0, mixer.heads, size), perm=[0, 2, 1, 3])
    product = g.reshape(g.op("MatMul", by_head, matrix, role=name), 0, 0, 0, len(names), size)
    return g.op("Transpose", product, perm=[0, 2, 3, 1, 4])
