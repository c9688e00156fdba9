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
from xlstm_export.bundle.manifest import LAYERS, LENGTHS, MODEL_FILE, Manifest, write_manifest
from xlstm_export.errors import BundleError
from xlstm_export.lowering.taps import CUT
from xlstm_export.lowering.write import write_model
from xlstm_export.model.layer import result_name
from xlstm_export.model.spec import HIDDEN_IN, HIDDEN_OUT, ModelSpec
from xlstm_export.model.state import state_specs


def cut_out(
    bundle: Path, manifest: Manifest, types: Mapping[str, ir.DataType], before: str,
    part: ModelSpec, folder: Path,
) -> Manifest:  # fmt: skip
    """Write the layers of ``part`` into ``folder`` as a bundle with their weights alone.

    ``manifest`` is the whole bundle's, ``types`` are ``value_types`` of its graph; ``before`` is
    the ``result_name`` of the layer that comes before, "" at the beginning. Raises BundleError
    where the graph does not name its layers, or the part reads something else too.
    """
    path = bundle / MODEL_FILE
    model = ir.load(path)
    names: Mapping[str, str] = json.loads(model.metadata_props.get(LAYERS, "{}"))
    values = {str(v.name): v for node in model.graph for v in node.outputs}
    keys = {s.key for s in state_specs(part)}
    states = tuple(s for s in manifest.states if s.key in keys)
    is_end = part.outputs[0].name != HIDDEN_OUT
    last = result_name(*part.layers[-1])
    end = manifest.outputs[0].name if is_end else names.get(last, "")
    wanted = [end, *(s.output for s in states), *([names.get(before, "")] if before else [])]
    if not all(name in values for name in wanted):
        raise _not_separable(path, last, "which it does not name")
    if before:
        _begin_at(model.graph, values[names[before]], types, part)
    leaving = values[end] if is_end else _leave_by(model.graph, values[end], part)
    model.graph.outputs[:] = [leaving, *(values[s.output] for s in states)]
    RemoveUnusedNodesPass()(model)
    RemoveUnusedFunctionsPass()(model)
    model.graph.inputs[:] = [value for value in model.graph.inputs if value.uses()]
    allowed = {part.inputs[0].name, LENGTHS, *(s.input for s in states)}
    others = sorted(str(v.name) for v in model.graph.inputs if v.name not in allowed)
    if others:
        raise _not_separable(path, last, f"which also reads {others[0]}")
    write_model(model, folder)
    is_ragged = any(v.name == LENGTHS for v in model.graph.inputs)
    lengths = tuple(t for t in manifest.inputs if t.name == LENGTHS and is_ragged)
    own = replace(
        manifest,
        inputs=(*part.inputs, *lengths),
        outputs=manifest.outputs if is_end else part.outputs,
        states=states,
        ragged=is_ragged,
        logits=manifest.logits if is_end else "all",
        data_bytes=data_bytes(folder),
    )
    write_manifest(own, folder)
    return own


def _not_separable(path: Path, layer: str, why: str) -> BundleError:
    return BundleError(
        f"{path}: cannot be taken apart at {layer}, {why}; validate it as a whole, with --memory "
        "as large as that takes, or export again"
    )


def _begin_at(
    graph: ir.Graph, start: ir.Value, types: Mapping[str, ir.DataType], part: ModelSpec
) -> None:
    """Let what uses ``start`` use the new input, in the type that ``start`` has."""
    (entering,) = part.inputs
    given = ir.Value(
        name=HIDDEN_IN, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(entering.shape)
    )
    kind = types[str(start.name)]
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
