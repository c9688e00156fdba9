"""Products that share their left side, as one: [a W, a V] is a [W V], read once."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import replace_all_uses_with

_Key = tuple[ir.Value, ir.DataType | None, tuple[int, ...]]


def join_products(graph: ir.Graph) -> None:
    """Join the MatMuls of one value with constant matrices [K, N], or stacks of them [G, K, N].

    The columns of all stand side by side in one matrix, whose product is split again.
    """
    groups: dict[_Key, list[ir.Node]] = defaultdict(list)
    for node in graph:
        if (key := _key(node)) is not None:
            groups[key].append(node)
    for nodes in groups.values():
        if len(nodes) > 1:
            _join(graph, nodes)


def _key(node: ir.Node) -> _Key | None:
    """What products must share to be joined; None for one that stays alone."""
    if node.domain != "" or node.op_type != "MatMul":
        return None
    left, right = node.inputs
    matrix = None if right is None else right.const_value
    if left is None or right is None or matrix is None or not right.is_initializer():
        return None
    is_own = len(right.uses()) == 1 and not node.outputs[0].is_graph_output()
    if not is_own or len(matrix.shape) not in (2, 3):
        return None
    return left, matrix.dtype, tuple(matrix.shape.numpy()[:-1])


def _join(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    """One product in the place of the first; it is named after all."""
    first = nodes[0]
    matrices = [_numbers(node.inputs[1]) for node in nodes]
    name = f"{first.name}_joined"
    weight = _constant(graph, f"{name}.weight", np.concatenate(matrices, -1))
    columns = np.array([matrix.shape[-1] for matrix in matrices], np.int64)
    sizes = _constant(graph, f"{name}.columns", columns)
    product = ir.node("MatMul", [first.inputs[0], weight], name=name)
    product.outputs[0].name = name
    split = ir.node(
        "Split", [product.outputs[0], sizes], {"axis": -1}, num_outputs=len(nodes),
        name=f"{name}/Split",
    )  # fmt: skip
    graph.insert_before(first, [product, split])
    for node, part in zip(nodes, split.outputs, strict=True):
        old = node.outputs[0]
        part.name, part.type, part.shape = old.name, old.type, old.shape
        replace_all_uses_with(old, part)
        graph.remove(node, safe=True)


def _numbers(value: ir.Value | None) -> Any:
    assert value is not None
    assert value.const_value is not None
    array, kind = value.const_value.numpy(), value.const_value.dtype.numpy()
    # bfloat16 of torch before 2.8 comes as its bits, in uint16
    return array if array.dtype == kind else array.view(kind)


def _constant(graph: ir.Graph, name: str, array: Any) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)
    )
    graph.register_initializer(value)
    return value
