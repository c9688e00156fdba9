"""ModelSpec and Weights to one ONNX graph that serves prefill and decode.

input_ids [batch, sequence] (or inputs_embeds) and past.* -> logits (or last_hidden_state) and
present.*; batch and sequence are dynamic, every recurrence is one ``ai.xlstm`` node whose
standard-operator body travels with the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from xlstm_export import __version__
from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.functions import function_body
from xlstm_export.lowering.layers.feedforward import feed_forward
from xlstm_export.lowering.layers.language_model import embedding, last_step, logits
from xlstm_export.lowering.layers.mlstm import mlstm_mixer, up_projected_mixer
from xlstm_export.lowering.layers.norm import norm
from xlstm_export.lowering.layers.slstm import slstm_mixer
from xlstm_export.lowering.layers.state_io import StateIO, declare_states
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.model.spec import (
    Block,
    MLSTMMixer,
    ModelSpec,
    SLSTMMixer,
    UpProjectedMLSTMMixer,
)
from xlstm_export.model.weights import Weights, below
from xlstm_export.ops.catalog import DOMAIN, VERSION

IR_VERSION = 9

_MIXERS: dict[type[Any], Callable[..., ir.Value]] = {
    MLSTMMixer: mlstm_mixer,
    UpProjectedMLSTMMixer: up_projected_mixer,
    SLSTMMixer: slstm_mixer,
}


def lower_model(spec: ModelSpec, weights: Weights, options: LoweringOptions) -> ir.Model:
    """Build the graph; no weight is read yet."""
    g = Emitter(options.dtype)
    is_lm = spec.vocab_size is not None
    if is_lm:
        x = embedding(g, g.input("input_ids", "int64", ("batch", "sequence")), weights)
    else:
        shape = ("batch", "sequence", spec.model_size)
        x = g.cast(g.input("inputs_embeds", "float32", shape), g.dtype)
    lengths = (
        g.input("sequence_lengths", "int32", ("batch",))
        if options.ragged
        else g.constant([-1], "int32")
    )
    states = declare_states(g, spec, options.state_names, lengths)
    for layer, block in enumerate(spec.blocks):
        x = _block(g, x, block, below(weights, f"blocks.{layer}"), layer, states)
    g.scope = ""
    if is_lm and options.logits == "last":
        x = last_step(g, x, lengths if options.ragged else None)
    if spec.out_norm is not None:
        x = norm(g, x, spec.out_norm, weights, "out_norm")
        x = g.cast(x, g.dtype) if is_lm else x
    elif not is_lm:
        x = g.cast(x, "float32")
    if is_lm:
        assert spec.vocab_size is not None
        steps = "sequence" if options.logits == "all" else 1
        y = logits(g, x, spec, weights)
        g.output(y, "logits", "float32", ("batch", steps, spec.vocab_size))
    else:
        shape = ("batch", "sequence", spec.model_size)
        g.output(x, "last_hidden_state", "float32", shape)
    states.declare_outputs(g)
    return _model(g, options.opset)


def _block(
    g: Emitter, x: ir.Value, block: Block, weights: Weights, layer: int, states: StateIO
) -> ir.Value:
    g.scope = f"/layers.{layer}"
    normed = norm(g, x, block.mixer_norm, weights, "mixer_norm")
    g.scope = f"/layers.{layer}/{'slstm' if isinstance(block.mixer, SLSTMMixer) else 'mlstm'}"
    mix = _MIXERS[type(block.mixer)]
    mixed = mix(g, normed, block.mixer, below(weights, "mixer"), layer, states)
    x = g.op("Add", x, mixed, role="residual")
    if block.ffn is not None and block.ffn_norm is not None:
        g.scope = f"/layers.{layer}"
        normed = g.cast(norm(g, x, block.ffn_norm, weights, "ffn_norm"), g.dtype)
        g.scope = f"/layers.{layer}/ffn"
        x = g.op(
            "Add", x, feed_forward(g, normed, block.ffn, below(weights, "ffn")), role="residual"
        )
    return x


def _model(g: Emitter, opset: int) -> ir.Model:
    graph = ir.Graph(
        g.inputs,
        g.outputs,
        nodes=g.nodes,
        initializers=list(g.initializers.values()),
        opset_imports={"": opset, DOMAIN: VERSION},
        name="xlstm",
    )
    used = sorted({node.op_type for node in g.nodes if node.domain == DOMAIN})
    functions = [ir.serde.deserialize_function(function_body(name, opset)) for name in used]
    return ir.Model(
        graph,
        ir_version=IR_VERSION,
        producer_name="xlstm-export",
        producer_version=__version__,
        functions=functions,
    )
