"""The manifest of a graph."""

from __future__ import annotations

import onnx_ir as ir

from xlstm_export.bundle.manifest import (
    CONTINUE_FILE,
    FORMAT_VERSION,
    Continuation,
    Manifest,
    OpsInfo,
    SourceInfo,
    StateInfo,
    TensorInfo,
)
from xlstm_export.checkpoint.source import Checkpoint, Source, fingerprint
from xlstm_export.environment import versions
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.low_bit import step_bytes
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import state_specs
from xlstm_export.model.storage import stored
from xlstm_export.ops.catalog import DOMAIN, VERSION

RUNS_ON = {
    "float32": ("onnxruntime-cpu", "onnxruntime-gpu", "tensorrt"),
    "float16": ("onnxruntime-cpu", "onnxruntime-gpu", "tensorrt"),
    "bfloat16": ("onnxruntime-gpu", "tensorrt"),
}
"""Where a bundle runs, by the type of its activations."""


def describe_graph(
    model: ir.Model,
    checkpoint: Checkpoint,
    source: Source,
    options: LoweringOptions,
    continuing: ir.Model | None = None,
) -> Manifest:
    """The manifest of ``model``, lowered from ``checkpoint`` with ``options``.

    ``continuing`` is the graph that goes on from states, where it is another.
    """
    states = tuple(
        StateInfo(s.key, *s.names(options.state_names), s.shape, s.dtype, s.init)
        for s in state_specs(checkpoint.spec)
    )
    carried = {name for state in states for name in (state.input, state.output)}

    def ends(graph: ir.Graph) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        inputs, outputs = (
            tuple(tensor_info(value) for value in values if value.name not in carried)
            for values in (graph.inputs, graph.outputs)
        )
        return inputs, outputs

    inputs, outputs = ends(model.graph)
    return Manifest(
        format_version=FORMAT_VERSION,
        family=checkpoint.spec.family,
        dtype=options.dtype,
        opset=options.opset,
        ops=OpsInfo(DOMAIN, VERSION),
        inputs=inputs,
        outputs=outputs,
        states=states,
        source=SourceInfo(source.name, fingerprint(checkpoint)),
        versions=versions(),
        runs_on=runs_on(checkpoint.spec, options),
        logits=options.logits,
        ragged=options.ragged,
        continuation=Continuation(CONTINUE_FILE, *ends(continuing.graph)) if continuing else None,
        forecast=checkpoint.spec.forecast,
        numerics=options.numerics,
        low_bit=options.low_bit,
        step_bytes=step_bytes(
            checkpoint.spec, stored(checkpoint.spec, checkpoint.weights, options.storage)
        ),
    )


def runs_on(spec: ModelSpec, options: LoweringOptions) -> tuple[str, ...]:
    """Where a bundle runs.

    TensorRT takes blocks around 0, in standard operators; of a matrix that is a table as well it
    refuses the lookup.
    """
    places, low_bit = RUNS_ON[options.dtype], options.low_bit
    tied = {f"{head.tied_to}.weight" for head in spec.layers_of(LogitHead) if head.tied_to}
    if low_bit is None or (
        low_bit.symmetric and not low_bit.matmul_nbits and tied <= set(low_bit.wide)
    ):
        return places
    return tuple(place for place in places if place != "tensorrt")


def tensor_info(value: ir.Value) -> TensorInfo:
    """The manifest's entry for an input or output of a graph."""
    assert value.name is not None
    assert value.shape is not None
    assert value.dtype is not None
    shape = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)
    return TensorInfo(value.name, value.dtype.numpy().name, shape)
