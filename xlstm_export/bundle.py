"""What goes into a bundle beside the graph: its description and the source's companions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xlstm_export.environment import versions
from xlstm_export.errors import CheckpointError
from xlstm_export.families.source import Checkpoint, Source, fingerprint
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.model.manifest import (
    FORMAT_VERSION,
    Manifest,
    OpsInfo,
    SourceInfo,
    StateInfo,
    TensorInfo,
)
from xlstm_export.model.state import state_specs
from xlstm_export.ops.catalog import DOMAIN, VERSION

if TYPE_CHECKING:
    import onnx_ir as ir

_COMPANIONS = (
    "config.json", "config.yaml", "config.yml", "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "vocab.json",
    "merges.txt", "added_tokens.json",
)  # fmt: skip
"""Files of a source that a bundle keeps a copy of."""

_RUNS_ON = {
    "float32": ("onnxruntime-cpu", "onnxruntime-gpu", "tensorrt"),
    "float16": ("onnxruntime-cpu", "onnxruntime-gpu", "tensorrt"),
    "bfloat16": ("onnxruntime-gpu", "tensorrt"),
}


def describe_graph(
    model: ir.Model, checkpoint: Checkpoint, source: Source, options: LoweringOptions
) -> Manifest:
    """The manifest of ``model``, lowered from ``checkpoint`` with ``options``."""
    states = tuple(
        StateInfo(s.key, *s.names(options.state_names), s.shape, s.dtype, s.init)
        for s in state_specs(checkpoint.spec)
    )
    carried = {name for state in states for name in (state.input, state.output)}
    return Manifest(
        format_version=FORMAT_VERSION,
        family=checkpoint.spec.family,
        dtype=options.dtype,
        opset=options.opset,
        ops=OpsInfo(DOMAIN, VERSION),
        inputs=tuple(_info(v) for v in model.graph.inputs if v.name not in carried),
        outputs=tuple(_info(v) for v in model.graph.outputs if v.name not in carried),
        states=states,
        source=SourceInfo(source.name, fingerprint(checkpoint)),
        versions=versions(),
        runs_on=_RUNS_ON[options.dtype],
        logits=options.logits,
        ragged=options.ragged,
    )


def copy_companions(source: Source, folder: Path) -> None:
    """Copy configuration and tokenizer files of ``source`` into the bundle ``folder``."""
    beside = source.path if source.path.is_dir() else source.path.parent
    for name in _COMPANIONS:
        if (beside / name).is_file():
            _copy(beside / name, folder / name)
    if source.config is not None:
        _copy(source.config, folder / f"config{source.config.suffix}")


def _copy(file: Path, target: Path) -> None:
    """Copy a small file; raises CheckpointError where it is the source that fails."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    target.write_bytes(content)


def _info(value: ir.Value) -> TensorInfo:
    assert value.name is not None
    assert value.shape is not None
    assert value.dtype is not None
    shape = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)
    return TensorInfo(value.name, value.dtype.numpy().name, shape)
