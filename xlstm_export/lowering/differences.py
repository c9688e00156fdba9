"""How one part of a bundle's graph differs from the graph that the checkpoint gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from xlstm_export.lowering.taps import CUT
from xlstm_export.model.weights import Array
from xlstm_export.ops.catalog import DOMAIN


@dataclass(frozen=True)
class OtherWeight:
    """A weight whose numbers are not the checkpoint's, as the file has it and as it should be."""

    name: str
    file: Array
    expected: Array


@dataclass(frozen=True)
class OtherAttribute:
    """An attribute of a node, as the file has it and as it should be."""

    node: str
    op_type: str
    attribute: str
    file: object
    expected: object


@dataclass(frozen=True)
class Differences:
    """What is other in one part: weights, attributes, nodes that should not be there or read other
    values, and operators whose bodies are changed.
    """

    weights: tuple[OtherWeight, ...]
    attributes: tuple[OtherAttribute, ...]
    nodes: tuple[str, ...]
    bodies: tuple[str, ...]


def differences(value: str, tapped: ir.Model, expected: ir.Model) -> Differences:
    """Of the part that computes ``value``, from the cuts of the ``tapped`` model up to it."""
    nodes = [node for node in _part(value, tapped) if not str(node.name).startswith(CUT)]
    found = {node.name: node for node in expected.graph}
    weights = expected.graph.initializers
    pairs = [(node, found[node.name]) for node in nodes if node.name in found]
    return Differences(
        tuple(_weights(nodes, weights)),
        tuple(other for node, own in pairs for other in _attributes(node, own)),
        (*(str(node.name) for node in nodes if node.name not in found), *_rewired(pairs)),
        tuple(
            sorted(
                {n.op_type for n in nodes if n.domain == DOMAIN} & changed_bodies(tapped, expected)
            )
        ),
    )


def changed_bodies(model: ir.Model, expected: ir.Model) -> set[str]:
    """Operators whose function bodies are other ones."""
    own = {f.name: _text(f) for f in expected.functions.values()}
    return {f.name for f in model.functions.values() if own.get(f.name, "") != _text(f)}


def adds_eps_inside(model: ir.Model, op_type: str) -> bool:
    """Whether the body of ``op_type`` adds eps to something that a maximum is then taken of."""
    (body,) = [f for f in model.functions.values() if f.name == op_type]
    graphs = [
        body.graph,
        *(
            a.as_graph()
            for n in body
            for a in n.attributes.values()
            if a.type == ir.AttributeType.GRAPH
        ),
    ]
    return any(
        user.op_type == "Max"
        for graph in graphs
        for node in graph
        if node.op_type == "Add" and any(str(v.name).startswith("eps") for v in node.inputs if v)
        for user, _ in ((use.node, use.idx) for use in node.outputs[0].uses())
    )


def _part(value: str, model: ir.Model) -> Iterator[ir.Node]:
    """The nodes that ``value`` is computed by, back to inputs of the graph."""
    (start,) = [n for n in model.graph if any(v.name == value for v in n.outputs)]
    waiting, seen = [start], {start}
    while waiting:
        node = waiting.pop()
        yield node
        for operand in node.inputs:
            producer = operand.producer() if operand is not None else None
            if producer is not None and producer not in seen:
                seen.add(producer)
                waiting.append(producer)


def _weights(nodes: list[ir.Node], expected: Mapping[str, ir.Value]) -> Iterator[OtherWeight]:
    names = {
        v.name: v for n in nodes for v in n.inputs if v is not None and v.const_value is not None
    }
    for name, value in names.items():
        own = expected.get(str(name))
        if own is None or own.const_value is None or value.const_value is None:
            continue
        file, right = value.const_value.numpy(), own.const_value.numpy()
        if file.shape == right.shape and not np.array_equal(file, right, equal_nan=True):
            yield OtherWeight(str(name), file.astype(np.float64), right.astype(np.float64))


def _attributes(node: ir.Node, own: ir.Node) -> Iterator[OtherAttribute]:
    for name, attribute in own.attributes.items():
        file = node.attributes.get(name)
        if file is None or not _is_same(file.value, attribute.value):
            value = None if file is None else file.value
            yield OtherAttribute(str(node.name), node.op_type, name, value, attribute.value)


def _is_same(file: object, expected: object) -> bool:
    if isinstance(file, float) and isinstance(expected, float):
        return bool(np.float32(file) == np.float32(expected))  # what a file holds
    return file == expected


def _rewired(pairs: list[tuple[ir.Node, ir.Node]]) -> Iterator[str]:
    """Nodes that read weights or values of other names; cuts have names of their own."""
    for node, own in pairs:
        for value, right in zip(node.inputs, own.inputs, strict=False):
            is_cut = value is not None and str(value.name).startswith(CUT)
            names = (value and value.name, right and right.name)
            if not is_cut and names[0] != names[1]:
                yield str(node.name)
                break


def _text(function: ir.Function) -> bytes:
    return bytes(ir.to_proto(function).SerializeToString(deterministic=True))
