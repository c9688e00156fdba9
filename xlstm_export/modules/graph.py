"""From what torch.onnx wrote to a graph of ours: bodies, readable names, nothing of the machine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from xlstm_export import __version__
from xlstm_export.errors import UnsupportedModelError
from xlstm_export.lowering.emit import scope_of
from xlstm_export.lowering.functions import function_body
from xlstm_export.lowering.lower import IR_VERSION
from xlstm_export.lowering.widening import widen_what_lacks_bfloat16
from xlstm_export.modules.join import join_products
from xlstm_export.modules.shapes import renamed
from xlstm_export.ops.catalog import DOMAIN, PLUGIN_ATTRIBUTES

_NETWORK = "network."
"""What torch calls the network within ``Whole``."""


def finish_graph(
    model: ir.Model, names: Mapping[str, str], sizes: Mapping[str, Sequence[int | str]], opset: int
) -> ir.Model:
    """``model`` with bodies, names after module paths, and sizes called by ``names``.

    ``sizes``: shapes of inputs and outputs that are known better than torch.onnx knows them.
    Raises UnsupportedModelError for nodes that are no standard operators.
    """
    graph = model.graph
    _name_nodes(graph)
    _name_weights(graph)
    join_products(graph)
    for node in graph:
        if node.domain == DOMAIN:
            node.attributes.update({k: ir.AttrString(k, v) for k, v in PLUGIN_ATTRIBUTES.items()})
        elif node.domain != "":
            raise UnsupportedModelError(
                f"{node.name}: {node.domain}.{node.op_type} is no standard operator of ONNX"
            )
        for value in node.outputs:
            _name_sizes(value, names)
    for value in (*graph.inputs, *graph.outputs):
        _name_sizes(value, names)
        if value.name is not None and value.name in sizes:
            value.shape = ir.Shape(sizes[value.name])
    used = sorted({node.op_type for node in graph if node.domain == DOMAIN})
    bodies = [ir.serde.deserialize_function(function_body(name, opset)) for name in used]
    finished = ir.Model(
        graph, ir_version=IR_VERSION, producer_name="xlstm-export", producer_version=__version__,
        functions=bodies,
    )  # fmt: skip
    graph.name = "network"
    widen_what_lacks_bfloat16(graph, opset)
    _forget_torch(graph)
    for pass_ in (
        common.ClearMetadataAndDocStringPass(), common.DeduplicateInitializersPass(),
        common.RemoveUnusedNodesPass(), common.TopologicalSortPass(),
    ):  # fmt: skip
        pass_(finished)
    return finished


def _forget_torch(graph: ir.Graph) -> None:
    """Drop what torch noted about every value; a pass drops it from the nodes."""
    values = [*graph.inputs, *graph.initializers.values()]
    for value in (*values, *(value for node in graph for value in node.outputs)):
        value.metadata_props.clear()
        if value.const_value is not None:
            value.const_value.metadata_props.clear()


def _name_nodes(graph: ir.Graph) -> None:
    """/{module path}/{operator}, as the module tree has it; values are called after their node."""
    ends = {value.name for value in (*graph.inputs, *graph.outputs)}
    uses: Counter[str] = Counter()
    for node in graph:
        scopes = re.findall(rf"{re.escape(_NETWORK)}([\w.]+): ", _scopes(node))
        name = f"{scope_of(scopes[-1]) if scopes else ''}/{node.op_type}"
        uses[name] += 1
        node.name = f"{name}_{uses[name] - 1}" if uses[name] > 1 else name
        for index, value in enumerate(node.outputs):
            if value.name not in ends:
                value.name = f"{node.name}.{index}" if len(node.outputs) > 1 else node.name


def _scopes(node: ir.Node) -> str:
    """torch's list of modules around a node, outermost first; "" where it keeps none."""
    return node.metadata_props.get("namespace", "")


def _name_weights(graph: ir.Graph) -> None:
    for value in list(graph.initializers.values()):
        assert value.name is not None
        value.name = value.name.removeprefix(_NETWORK)


def _name_sizes(value: ir.Value, names: Mapping[str, str]) -> None:
    if value.shape is not None:
        dims = [d if isinstance(d, int) else str(d.value) for d in value.shape]
        value.shape = ir.Shape([renamed(d, names) if d != "None" else None for d in dims])
