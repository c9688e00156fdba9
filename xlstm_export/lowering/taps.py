"""A graph taken apart: every part gets the inputs that are given, and shows what it makes of them.

A copy for finding faults: at each result of a layer, and at what goes into a recurrent operator
and comes out, the graph is cut. What was computed there is one more output; what goes on from
there is one more input. So a fault shows in the part where it is, and nowhere after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from xlstm_export.bundle.manifest import LAYERS
from xlstm_export.lowering.emit import scope_of
from xlstm_export.ops.catalog import CATALOG, DOMAIN

SEEN_INSIDE = {
    "XlstmMLSTM": ("q", "k", "v", "i", "f", "h"),
    "XlstmSLSTM": ("gates", "y_all"),
    "XlstmCausalConv1d": ("x", "y"),
}
"""Operands and results of each operator where the graph is cut; states are cut by the call."""
CUT = "exact "
"""What the names of values begin with that a graph goes on with where it was cut."""
NETWORK = "network"
"""The path of a network of one's own, in names."""

Dims = Sequence[int | None]


@dataclass(frozen=True)
class Tap:
    """One cut: the graph's output ``got``, and its input ``exact``, "" where nothing goes on.

    ``op_type`` and ``node`` are of the node that computes it.
    """

    name: str
    got: str
    exact: str
    dtype: str
    op_type: str
    node: str


@dataclass(frozen=True)
class TappedModel:
    """A model with its taps, in the order in which they are computed."""

    model: ir.Model
    taps: tuple[Tap, ...]


def tap_graph(path: Path, sizes: Mapping[str, Dims], is_cut: bool = True) -> TappedModel:
    """The graph file ``path``, with the taps that are named where it has them; it keeps its
    external data. ``sizes`` are those of what goes on from each, None where they vary.

    Without ``is_cut`` every part goes on with what was computed.
    """
    model = ir.load(path)
    types, place = value_types(path), _places(model)
    found = sorted(_values(model).items(), key=lambda pair: place[pair[1]])
    taps, done = [], set()
    for name, value in found:
        if name in sizes and value not in done and value.name in types:
            done.add(value)
            taps.append(
                _tap(model.graph, name, value, types[value.name], sizes[name] if is_cut else None)
            )
    return TappedModel(model, tuple(taps))


def value_types(path: Path) -> dict[str, ir.DataType]:
    """Element types of the values of the graph file ``path``, by name."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path), load_external_data=False)).graph
    known = (*graph.value_info, *graph.output)
    return {v.name: ir.DataType(v.type.tensor_type.elem_type) for v in known}


def _values(model: ir.Model) -> dict[str, ir.Value]:
    """Where to cut, by name: results of layers, and what surrounds operators."""
    named = {value.name: value for node in model.graph for value in node.outputs}
    layers: Mapping[str, str] = json.loads(model.metadata_props.get(LAYERS, "{}"))
    found = {name: named[value] for name, value in layers.items() if value in named}
    if not layers:
        return _of_network(model)
    scopes = {scope_of(path): path for path in layers if " " not in path}
    operators: dict[str, list[ir.Node]] = {}
    for node in model.graph:
        path = scopes.get((node.name or "").rpartition("/")[0])
        if path is not None and node.domain == DOMAIN and node.op_type in CATALOG:
            operators.setdefault(f"{path} {node.op_type}", []).append(node)
    for name, nodes in operators.items():
        if len(nodes) == 1:  # of a layer that runs twice a call it is not known which is which
            found |= _around(nodes[0], name)
    return found


def _of_network(model: ir.Model) -> dict[str, ir.Value]:
    """The same of a network of one's own: its outputs are what it has of layers, and every node
    is named by itself, "{module path} {node}".
    """
    found = {str(v.name): v for v in model.graph.outputs if not str(v.name).startswith("present.")}
    for node in model.graph:
        if node.domain == DOMAIN and node.op_type in CATALOG:
            scope, _, name = str(node.name).rpartition("/")
            found |= _around(node, f"{scope.strip('/').replace('/', '.') or NETWORK} {name}")
    return found


def _around(node: ir.Node, name: str) -> dict[str, ir.Value]:
    """Operands and results of an operator, by their names behind ``name``."""
    schema = CATALOG[node.op_type]
    operands = zip(schema.inputs, node.inputs, strict=False)
    results = zip(schema.outputs, node.outputs, strict=False)
    return {
        f"{name}.{tensor.name}": value
        for tensor, value in (*operands, *results)
        if tensor.name in SEEN_INSIDE[node.op_type]
        and value is not None and value.producer() is not None
    }  # fmt: skip


def _places(model: ir.Model) -> dict[ir.Value, int]:
    return {value: i for i, node in enumerate(model.graph) for value in node.outputs}


def _tap(
    graph: ir.Graph, name: str, value: ir.Value, kind: ir.DataType, sizes: Dims | None
) -> Tap:  # fmt: skip
    """Give ``value`` out, and let who uses it use a new input; bfloat16 passes as float32."""
    producer = value.producer()
    assert producer is not None
    is_narrow = kind == ir.DataType.BFLOAT16
    passed = ir.DataType.FLOAT if is_narrow else kind
    users, exact = [(use.node, use.idx) for use in value.uses()], ""
    if users and sizes is not None:
        exact = f"{CUT}{name}"
        given = ir.Value(name=exact, type=ir.TensorType(passed), shape=ir.Shape(sizes))
        graph.inputs.append(given)
        operand = given
        if is_narrow:
            operand = _cast(graph, given, kind, users[0][0], before=True)
        for user, index in users:
            user.replace_input_with(index, operand)
    shown = value
    if value not in graph.outputs:
        shown = _cast(graph, value, passed, producer) if is_narrow else value
        shown.type = ir.TensorType(passed)
        graph.outputs.append(shown)
    return Tap(
        name, str(shown.name), exact, str(kind.numpy().name), producer.op_type, producer.name or ""
    )


def _cast(
    graph: ir.Graph, value: ir.Value, kind: ir.DataType, beside: ir.Node, before: bool = False
) -> ir.Value:
    cast = ir.node("Cast", [value], {"to": int(kind)}, name=f"{value.name} as {kind.name}")
    cast.outputs[0].name = f"{value.name} as {kind.name}"
    (graph.insert_before if before else graph.insert_after)(beside, cast)
    return cast.outputs[0]
