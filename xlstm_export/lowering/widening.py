"""Nodes of a bfloat16 graph that compute in float32 on rounded operands."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from xlstm_export.ops.catalog import DOMAIN

MEASURING = {"Shape"}
"""What reads no numbers of its operand."""


def widen_what_lacks_bfloat16(graph: ir.Graph, opset: int) -> None:
    """``widen`` every node whose operator takes no bfloat16 in ``opset``, such as Conv."""
    bf16 = bf16_values(graph)
    for node in list(graph):
        if node.domain == "" and not _takes_bfloat16(node, opset, bf16):
            widen(graph, node, bf16)


def _takes_bfloat16(node: ir.Node, opset: int, bf16: set[ir.Value]) -> bool:
    schema = onnx.defs.get_schema(node.op_type, opset)
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    several = schema.inputs[-1]  # of a variadic operator all further operands are like the last
    return all(
        "tensor(bfloat16)" in allowed.get(formal.type_str, [])
        for formal, value in zip(
            [*schema.inputs, *[several] * len(node.inputs)], node.inputs, strict=False
        )
        if value in bf16
    )


def bf16_values(graph: ir.Graph) -> set[ir.Value]:
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
        elif node.op_type not in MEASURING and any(
            v in found for v in node.inputs if v is not None
        ):
            found |= set(node.outputs)
    return found


def widen(graph: ir.Graph, node: ir.Node, bf16: set[ir.Value]) -> None:
    """Let ``node`` compute in float32: bfloat16 in and out, of ``bf16``, is cast around it."""
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
        narrow.outputs[0].type, narrow.outputs[0].shape = value.type, value.shape
        value.type = ir.TensorType(ir.DataType.FLOAT)
