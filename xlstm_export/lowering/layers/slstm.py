"""The sLSTM layer around ``XlstmSLSTM``.

x ─ conv+silu ─ i,f ─┐
 └───────────── z,o ─ sLSTM ─ head norm
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from xlstm_export.lowering.causal_conv import causal_conv
from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.head_norm import head_norm
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.storage import rounded_to_bfloat16
from xlstm_export.model.weights import Array, Weights, concatenate

_CONVOLVED = ("input_gate", "forget_gate")
_PLAIN = ("cell_input", "output_gate")


def emit(g: Emitter, normed: ir.Value, layer: SLSTM, place: Place) -> ir.Value:
    """normed [B,T,D] float32 to [B,T,D]."""
    with g.within(place.scope):
        return _slstm(g, g.cast(normed, g.dtype), layer, place)


def _slstm(g: Emitter, x: ir.Value, layer: SLSTM, place: Place) -> ir.Value:
    weights = place.weights
    if layer.conv_width > 0:
        conv = causal_conv(g, x, place)
        parts = [_gates(g, conv, layer, weights, _CONVOLVED), _gates(g, x, layer, weights, _PLAIN)]
        gates = g.op("Concat", *parts, axis=2)
    else:
        gates = _gates(g, x, layer, weights, _CONVOLVED + _PLAIN)
    R = weights["R.weight"]
    y_all, *present = g.custom(
        "XlstmSLSTM",
        [
            g.cast(gates, "float32"),
            g.weight(f"{g.scope}/R.weight", rounded_to_bfloat16(R) if layer.state_rounding else R),
            g.weight(f"{g.scope}/R.bias", weights["R.bias"]),
            *place.take(g, "slstm", "ycnm"),
            place.lengths,
        ],
        n_floor=layer.n_floor,
        f_clamp=layer.f_clamp,
        state_rounding=layer.state_rounding,
    )
    place.give("slstm", "ycnm", present)
    return head_norm(g, y_all, layer.heads, layer.head_size, layer.head_norm_eps, weights)


def _gates(
    g: Emitter, x: ir.Value, layer: SLSTM, weights: Weights, names: Sequence[str]
) -> ir.Value:
    """Headwise projections of x [B,T,D], a MatMul for each head: [B,T,len(names),N,H].

    Runtimes keep a constant matrix packed, and pack one of several heads anew in every call.
    """
    size, name = layer.head_size, "_".join(names)
    matrix = concatenate([weights[f"{path}.weight"] for path in names], axis=1)
    products = []
    for head, part in enumerate(g.split(x, [size] * layer.heads)):
        by_head = g.weight(f"{g.scope}/{name}.{head}.weight", matrix.with_view(_of_head(head)))
        products.append(g.op("MatMul", part, by_head, role=name))
    joined = products[0] if layer.heads == 1 else g.op("Concat", *products, axis=2)
    by_gate = g.reshape(joined, 0, 0, layer.heads, len(names), size)
    return g.op("Transpose", by_gate, perm=[0, 1, 3, 2, 4])


def _of_head(head: int) -> Callable[[Array], Array]:
    """[N,out,in] to [in,out]."""
    return lambda w: w[head].T
