"""bfloat16 graphs on a CPU: every bfloat16 operation widened to float32 on rounded operands.

ONNX Runtime's CPU provider moves and casts bfloat16 but does not compute with it. The copy made
here casts the operands of each computing node to float32 and its result back to bfloat16, which
is what hardware with float32 accumulation does.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from xlstm_export.errors import BundleError
from xlstm_export.ops.catalog import DOMAIN

_MOVING = {"Cast", "Concat", "Gather", "GatherND", "Identity", "Reshape", "Split", "Transpose"}
_MEASURING = {"Shape"}


def emulated_graph(model: Path) -> bytes:
    """The widened copy of the graph file ``model``, serialised; it keeps the external data.

    Raises BundleError where the file is missing or damaged.
    """
    if not model.is_file():
        raise BundleError(f"{model}: missing; export again")
    try:
        return _widened(ir.load(model))
    except MemoryError:
        raise
    except Exception as error:  # a damaged graph fails in many ways and places
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise BundleError(f"{model}: not a readable graph; export again ({reason})") from error


def _widened(emulated: ir.Model) -> bytes:
    if not len(emulated.graph):
        raise ValueError("it holds no nodes")
    bf16 = _bf16_values(emulated.graph)
    for node in list(emulated.graph):
        if node.domain != DOMAIN and node.op_type not in _MOVING | _MEASURING:
            _widen(emulated.graph, node, bf16)
    return bytes(ir.to_proto(emulated).SerializeToString())


def _bf16_values(graph: ir.Graph) -> set[ir.Value]:
    """Values of type bfloat16: initialisers, and what nodes make of them."""
    found = {v for v in graph.initializers.values() if v.dtype == ir.DataType.BFLOAT16}
    for node in graph:
        if node.op_type == "Cast":
            is_bf16 = node.attributes["to"].as_int() == ir.DataType.BFLOAT16
            found |= set(node.outputs) if is_bf16 else set()
        elif node.domain == DOMAIN:
            # the output over time has the type of the first activation operand
            operand = node.inputs[1 if node.op_type == "XlstmSLSTM" else 0]
            found |= {node.outputs[0]} if operand in found else set()
        elif node.op_type not in _MEASURING and any(
            v in found for v in node.inputs if v is not None
        ):
            found |= set(node.outputs)
    return found


def _widen(graph: ir.Graph, node: ir.Node, bf16: set[ir.Value]) -> None:
    if not any(v in bf16 for v in node.inputs if v is not None):
        return
    for index, value in enumerate(node.inputs):
        if value in bf16:
            cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
            cast.outputs[0].name = f"{node.name}/wide_{index}"
            graph.insert_before(node, cast)
            node.replace_input_with(index, cast.outputs[0])
    for value in node.outputs:
        if value not in bf16:
            continue
        narrow = ir.node("Cast", [value], {"to": int(ir.DataType.BFLOAT16)})
        narrow.outputs[0].name = f"{value.name}/narrow"
        users = [(use.node, use.idx) for use in value.uses() if use.node is not narrow]
        graph.insert_after(node, narrow)
        for user, index in users:
            user.replace_input_with(index, narrow.outputs[0])
        bf16.add(narrow.outputs[0])
        bf16.discard(value)
        value.type = None
