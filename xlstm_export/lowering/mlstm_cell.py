"""``XlstmMLSTM`` with the states of the layer it stands in."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.head_norm import head_norm
from xlstm_export.lowering.place import Place
from xlstm_export.model.layers.mlstm import MLSTMCell

GATES = ("input_gate", "forget_gate")


def mlstm_cell(
    g: Emitter, qkv: Sequence[ir.Value], gates: Sequence[ir.Value], cell: MLSTMCell,
    norm_eps: float, place: Place,
) -> ir.Value:  # fmt: skip
    """Normed h [B,T,N*V] from q, k, v [B,T,N,*] and float32 gates [B,T,N]."""
    h, *present = g.custom(
        "XlstmMLSTM",
        [*qkv, *gates, *place.take(g, "mlstm", "Cnm"), place.lengths],
        gate_soft_cap=cell.gate_soft_cap,
        eps=cell.eps,
        scale_side=cell.scale_side,
        chunk_size=cell.chunk_size,
    )
    place.give("mlstm", "Cnm", present)
    return head_norm(g, h, cell.heads, cell.v_size, norm_eps, place.weights)
