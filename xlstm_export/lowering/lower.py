"""ModelSpec and Weights to one ONNX graph that serves prefill and decode.

The model's inputs and past.* -> its outputs and present.*; batch and sequence are dynamic, every
recurrence is one ``ai.xlstm`` node whose standard-operator body travels with the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from xlstm_export import __version__
from xlstm_export.bundle.manifest import LAYERS, LENGTHS, TensorInfo
from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.functions import function_body
from xlstm_export.lowering.last_step import last_step
from xlstm_export.lowering.low_bit import MICROSOFT
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.lowering.place import Place, declare_states, emit_layer
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.spec import SEQUENCE, ModelSpec, check_weights
from xlstm_export.model.storage import stored
from xlstm_export.model.weights import Weights
from xlstm_export.ops.catalog import DOMAIN, VERSION

IR_VERSION = 9
BLOCKS_IR_VERSION = 10
"""Has the types of 4 bits that opset 21 brings."""


def lower_model(
    spec: ModelSpec, weights: Weights, options: LoweringOptions, *, continues: bool = False
) -> ir.Model:
    """Build the graph; no weight is read yet.

    ``continues``: of a model whose recurrence is "begun", the graph that goes on from states.
    """
    check_weights(spec, weights)
    low_bit = options.low_bit
    g = Emitter(options.dtype, matmul_nbits=low_bit is not None and low_bit.matmul_nbits)
    inputs = {i.name: g.input(i.name, i.dtype, i.shape) for i in spec.inputs}
    begins = spec.recurrence != "carried" and not continues
    tied = frozenset(head.tied_to for head in spec.layers_of(LogitHead))
    place = Place("", stored(spec, weights, options.storage), begins, inputs, tied)
    x = _first_of(g, spec, inputs)
    start = _pointwise_from_the_front(spec)
    for path, layer in spec.layers[:start]:
        x = emit_layer(g, x, layer, place.at(path))
    lengths = g.input(LENGTHS, "int32", ("batch",)) if options.ragged else g.constant([-1], "int32")
    states = declare_states(g, spec, options.state_names, lengths, begins)
    place = replace(place, states=states)
    cut_at = _first_of_the_end(spec) if _is_cut(spec, options) else None
    for index, (path, layer) in enumerate(spec.layers[start:], start):
        if index == cut_at:
            x = last_step(g, x, lengths if options.ragged else None)
        x = emit_layer(g, x, layer, place.at(path))
    output = (spec.continued_outputs if continues else spec.outputs)[0]
    g.output(g.cast(x, output.dtype), output.name, output.dtype, _output_shape(output, cut_at))
    states.declare_outputs(g)
    return _model(g, options.opset, BLOCKS_IR_VERSION if options.low_bit else IR_VERSION)


def _first_of(g: Emitter, spec: ModelSpec, inputs: Mapping[str, ir.Value]) -> ir.Value:
    """What comes to the first layer: floating-point numbers in the type of the activations."""
    first = inputs[spec.inputs[0].name]
    return first if spec.takes_input_as_is else g.cast(first, g.dtype)


def _is_cut(spec: ModelSpec, options: LoweringOptions) -> bool:
    return options.logits == "last" and spec.outputs[0].name == "logits"


def _pointwise_from_the_front(spec: ModelSpec) -> int:
    """How many layers treat every step by itself before the first that does not."""
    return next(
        (i for i, (_, layer) in enumerate(spec.layers) if not layer.pointwise), len(spec.layers)
    )


def _first_of_the_end(spec: ModelSpec) -> int:
    """Number of the first layer of those at the end that treat every step by itself."""
    end = len(spec.layers)
    while end and spec.layers[end - 1][1].pointwise:
        end -= 1
    return end


def _output_shape(output: TensorInfo, cut_at: int | None) -> tuple[int | str, ...]:
    return tuple(1 if d == SEQUENCE and cut_at is not None else d for d in output.shape)


def _model(g: Emitter, opset: int, ir_version: int) -> ir.Model:
    foreign = {MICROSOFT: 1} if any(node.domain == MICROSOFT for node in g.nodes) else {}
    graph = ir.Graph(
        g.inputs,
        g.outputs,
        nodes=g.nodes,
        initializers=list(g.initializers.values()),
        opset_imports={"": opset, DOMAIN: VERSION} | foreign,
        name="xlstm",
    )
    used = sorted({node.op_type for node in g.nodes if node.domain == DOMAIN})
    functions = [ir.serde.deserialize_function(function_body(name, opset)) for name in used]
    return ir.Model(
        graph,
        ir_version=ir_version,
        producer_name="xlstm-export",
        producer_version=__version__,
        functions=functions,
        metadata_props={LAYERS: json.dumps(_results(g))},
    )


def _results(g: Emitter) -> dict[str, str]:
    """``result_name`` of each layer -> name of the value that it computes, where that is one."""
    return {path: str(values[0].name) for path, values in g.results.items() if len(values) == 1}
