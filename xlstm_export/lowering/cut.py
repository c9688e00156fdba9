"""A part of a bundle's graph as a bundle of its own: for a model that is too large to run whole.

From the result of one layer to that of another, with the states between them. Vectors come in and
go out as float32, which holds the numbers of every precision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass

from xlstm_export.bundle.checksum import data_bytes
from xlstm_export.bundle.manifest import (
    LAYERS,
    LENGTHS,
    MODEL_FILE,
    Manifest,
    StateInfo,
    read_manifest,
    write_manifest,
)
from xlstm_export.errors import BundleError
from xlstm_export.lowering.taps import CUT, value_types
from xlstm_export.lowering.write import write_model
from xlstm_export.model.layer import result_name
from xlstm_export.model.spec import HIDDEN_IN, HIDDEN_OUT, ModelSpec
from xlstm_export.model.state import state_specs


class Cutter:
    """Cuts parts out of the graph of ``bundle``, whose ``manifest`` is given."""

    def __init__(self, bundle: Path, manifest: Manifest) -> None:
        self._path, self._manifest = bundle / MODEL_FILE, manifest
        self._types = value_types(self._path)

    def cut(self, before: str, part: ModelSpec, folder: Path) -> Manifest:
        """Write the layers of ``part`` into ``folder`` as a bundle with their weights alone.

        ``before`` is the ``result_name`` of the layer that comes before, "" at the beginning.
        Raises BundleError where the graph does not name its layers, or the part reads other values.
        """
        model = ir.load(self._path)
        states = _states_of(part, self._manifest)
        start, end = self._ends(model, before, part)
        values = {str(v.name): v for node in model.graph for v in node.outputs}
        is_end = part.outputs[0].name != HIDDEN_OUT
        last = result_name(*part.layers[-1])
        if not all(name in values for name in (start or end, end, *(s.output for s in states))):
            raise self._not_separable(last, "which it does not name")
        if start:
            _begin_at(model.graph, values[start], self._types[start], part)
        leaving = values[end] if is_end else _leave_by(model.graph, values[end], part)
        model.graph.outputs[:] = [leaving, *(values[s.output] for s in states)]
        RemoveUnusedNodesPass()(model)
        RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        model.graph.inputs[:] = [value for value in model.graph.inputs if value.uses()]
        allowed = {part.inputs[0].name, LENGTHS, *(s.input for s in states)}
        others = sorted(str(v.name) for v in model.graph.inputs if v.name not in allowed)
        if others:
            raise self._not_separable(last, f"which also reads {others[0]}")
        write_model(model, folder)
        own = _manifest_of(model, part, states, self._manifest)
        own = replace(own, data_bytes=data_bytes(folder))
        write_manifest(own, folder)
        return read_manifest(folder)

    def _ends(self, model: ir.Model, before: str, part: ModelSpec) -> tuple[str, str]:
        """Names of the values that come to the part and leave it; "" at the beginning."""
        names: Mapping[str, str] = json.loads(model.metadata_props.get(LAYERS, "{}"))
        if part.outputs[0].name != HIDDEN_OUT:
            return names.get(before, before), self._manifest.outputs[0].name
        end = names.get(result_name(*part.layers[-1]), "")
        return names.get(before, before), end

    def _not_separable(self, layer: str, why: str) -> BundleError:
        return BundleError(
            f"{self._path}: cannot be taken apart at {layer}, {why}; validate it as a whole, with "
            "--memory as large as that takes, or export again"
        )


def _states_of(part: ModelSpec, manifest: Manifest) -> tuple[StateInfo, ...]:
    keys = {s.key for s in state_specs(part)}
    return tuple(s for s in manifest.states if s.key in keys)


def _manifest_of(
    model: ir.Model, part: ModelSpec, states: tuple[StateInfo, ...], whole: Manifest
) -> Manifest:
    is_end = part.outputs[0].name != HIDDEN_OUT
    is_ragged = any(value.name == LENGTHS for value in model.graph.inputs)
    lengths = tuple(t for t in whole.inputs if t.name == LENGTHS and is_ragged)
    return replace(
        whole,
        inputs=(*part.inputs, *lengths),
        outputs=whole.outputs if is_end else part.outputs,
        states=states,
        ragged=is_ragged,
        logits=whole.logits if is_end else "all",
    )


def _begin_at(graph: ir.Graph, start: ir.Value, kind: ir.DataType, part: ModelSpec) -> None:
    """Let what uses ``start`` use the new input, in the type that ``start`` has."""
    (entering,) = part.inputs
    given = ir.Value(
        name=HIDDEN_IN, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(entering.shape)
    )
    operand = _cast(given, kind, f"{CUT}{start.name}")
    for user, index in [(use.node, use.idx) for use in start.uses()]:
        user.replace_input_with(index, operand.outputs[0])
    graph.insert_before(graph[0], operand)
    graph.inputs.append(given)


def _leave_by(graph: ir.Graph, end: ir.Value, part: ModelSpec) -> ir.Value:
    cast = _cast(end, ir.DataType.FLOAT, HIDDEN_OUT)
    graph.append(cast)
    leaving = cast.outputs[0]
    leaving.shape = ir.Shape(part.outputs[0].shape)
    return leaving


def _cast(value: ir.Value, kind: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(kind)}, name=name)
    node.outputs[0].name = name
    node.outputs[0].type = ir.TensorType(kind)
    return node
