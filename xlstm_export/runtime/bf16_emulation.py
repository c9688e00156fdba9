"""bfloat16 graphs on a CPU: every bfloat16 operation widened to float32 on rounded operands.

ONNX Runtime's CPU provider moves and casts bfloat16 but does not compute with it. The copy made
here casts the operands of each computing node to float32 and its result back to bfloat16, which
is what hardware with float32 accumulation does.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from xlstm_export.errors import BundleError
from xlstm_export.lowering.widening import MEASURING, bf16_values, widen
from xlstm_export.ops.catalog import DOMAIN

_MOVING = {"Cast", "Concat", "Gather", "GatherND", "Identity", "Reshape", "Split", "Transpose"}


def emulated_graph(model: Path) -> bytes:
    """The widened copy of the graph file ``model``, serialised; it keeps the external data.

    Raises BundleError where the file is missing or damaged.
    """
    if not model.is_file():
        raise BundleError(f"{model}: missing; export again")
    try:
        return widened(ir.load(model))
    except MemoryError:
        raise
    except Exception as error:  # a damaged graph fails in many ways and places
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise BundleError(f"{model}: not a readable graph; export again ({reason})") from error


def widened(emulated: ir.Model) -> bytes:
    """The graph ``emulated``, widened and serialised. Raises ValueError where it holds no nodes."""
    if not len(emulated.graph):
        raise ValueError("it holds no nodes")
    bf16 = bf16_values(emulated.graph)
    for node in list(emulated.graph):
        if node.domain != DOMAIN and node.op_type not in _MOVING | MEASURING:
            widen(emulated.graph, node, bf16)
    return bytes(ir.to_proto(emulated).SerializeToString())
