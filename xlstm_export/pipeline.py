"""The story from checkpoint to verdict: each command is one function here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.bundle import copy_companions, describe_graph, fingerprint
from xlstm_export.environment import versions
from xlstm_export.errors import BackendUnavailableError
from xlstm_export.families.registry import Family, find_family
from xlstm_export.families.source import Checkpoint, Source
from xlstm_export.lowering.lower import LoweringOptions, lower_model
from xlstm_export.lowering.write import MODEL_FILE, check_model, write_model
from xlstm_export.model.manifest import Manifest, TensorInfo, read_manifest, write_manifest
from xlstm_export.model.precision import checkpoint_rounding
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.summary import summarise
from xlstm_export.runtime.generate import Generation, open_generation
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Array, Session
from xlstm_export.target import check_target, new_folder, write_text
from xlstm_export.validation.report import Report, decide, to_json, to_markdown

Progress = Callable[[str, int, int], None]
"""Called with what is going on, steps done, steps in all."""


__all__ = [
    "Exported", "Generation", "export", "inspect_bundle", "inspect_checkpoint", "open_generation",
    "read_checkpoint", "validate",
]  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """What an export made."""

    bundle: Path
    manifest: Manifest
    nodes: int
    """Nodes of the graph, each recurrence counted as one."""


def read_checkpoint(source: Source, family: str = "auto") -> Checkpoint:
    """Detect and read ``source``. Raises CheckpointError, UnsupportedModelError."""
    return find_family(source, family).read(source)


def inspect_checkpoint(source: Source, family: str = "auto") -> dict[str, Any]:
    """Facts about a checkpoint; its numbers are not read."""
    checkpoint = read_checkpoint(source, family)
    return {
        "source": str(source.path),
        **summarise(checkpoint.spec, checkpoint.weights),
        "files": [str(path) for path in checkpoint.files],
    }


def inspect_bundle(bundle: Path) -> dict[str, Any]:
    """Facts about a bundle, from its manifest."""
    manifest = read_manifest(bundle)
    return {
        "bundle": str(bundle),
        "family": manifest.family,
        "dtype": manifest.dtype,
        "opset": manifest.opset,
        "operators": f"{manifest.ops.domain} {manifest.ops.version}",
        "runs on": ", ".join(manifest.runs_on),
        "source": f"{manifest.source.name} (sha256 {manifest.source.sha256[:16]}…)",
        "inputs": [_tensor_line(t) for t in manifest.inputs],
        "outputs": [_tensor_line(t) for t in manifest.outputs],
        "states": [f"{s.input} -> {s.output}  {s.dtype} {list(s.shape)}" for s in manifest.states],
    }


def _tensor_line(tensor: TensorInfo) -> str:
    return f"{tensor.name}  {tensor.dtype} {list(tensor.shape)}"


def export(
    source: Source,
    out: Path,
    options: LoweringOptions,
    *,
    family: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Lower ``source`` into the bundle ``out``: complete, or not there at all.

    Raises CheckpointError, UnsupportedModelError, TargetError.
    """
    check_target(out, overwrite)
    checkpoint = read_checkpoint(source, family)
    model = lower_model(checkpoint.spec, checkpoint.weights, options)
    manifest = describe_graph(model, checkpoint, source, options)
    with new_folder(out, overwrite) as folder:
        path = write_model(model, folder, progress)
        check_model(path)
        write_manifest(manifest, folder)
        copy_companions(source, folder)
    return Exported(out, manifest, len(model.graph))


def validate(
    bundle: Path,
    source: Source,
    *,
    family: str = "auto",
    upstream: bool = True,
    batch: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Compare ``bundle`` in ONNX Runtime with the upstream module of ``source``; write the report.

    Without the upstream package, or with ``upstream`` False, the reference is our own float64
    model and the verdict at most ``self-consistent``.
    """
    from xlstm_export.runtime.reference import ReferenceModel
    from xlstm_export.validation.compare import (
        ROLLOUT,
        Panel,
        compare_rollout,
        relative_distance,
    )

    manifest = read_manifest(bundle)
    module = find_family(source, family)
    checkpoint = module.read(source)
    spec, weights, dtype = checkpoint.spec, checkpoint.weights, manifest.dtype
    notes: list[str] = []
    own = ReferenceModel(spec, weights, dtype, "float64")
    oracle = _oracle(module, source, checkpoint, dtype, notes) if upstream else None
    yardsticks = [
        ReferenceModel(spec, weights, dtype, dtype, f) for f in ("recurrent", "chunkwise")
    ]
    inputs = rollout_inputs(spec, batch, sum(ROLLOUT), seed)
    with _subject(bundle, manifest, notes) as subject:
        results = compare_rollout(
            Panel(subject, oracle or own, yardsticks[0], yardsticks[1]),
            inputs,
            ROLLOUT,
            dtype=dtype,
            output_name=manifest.outputs[0].name,
            last_only=manifest.logits == "last",
            progress=None if progress is None else lambda i, n: progress("comparing", i, n),
        )
        ops = subject.describe()
    report = Report(
        verdict=decide(results, oracle is not None),
        bundle=str(bundle),
        source=str(source.path),
        source_matches_bundle=fingerprint(checkpoint) == manifest.source.sha256,
        subject=subject.name,
        subject_ops=ops,
        reference=(oracle or own).name,
        yardsticks=(yardsticks[0].name, yardsticks[1].name),
        reader_distance=relative_distance(own, oracle, inputs[:, :16]) if oracle else None,
        batch=batch,
        calls=ROLLOUT,
        seed=seed,
        notes=tuple(notes),
        versions=versions(),
        results=tuple(results),
    )
    write_text(bundle / "reports" / "validation.json", to_json(report))
    write_text(bundle / "reports" / "validation.md", to_markdown(report))
    return report


def rollout_inputs(spec: ModelSpec, batch: int, steps: int, seed: int) -> Array:
    """Random ids [batch, steps], or normal embeddings [batch, steps, D] for a bare stack."""
    random = np.random.default_rng(seed)
    if spec.vocab_size is not None:
        return random.integers(0, spec.vocab_size, (batch, steps))
    # rounded to float32, the type of the graph input, so that both sides see one number
    return random.standard_normal((batch, steps, spec.model_size)).astype(np.float32)


def _oracle(
    module: Family, source: Source, checkpoint: Checkpoint, dtype: str, notes: list[str]
) -> Session | None:
    try:
        return module.oracle(source, checkpoint_rounding(checkpoint.weights, dtype))
    except BackendUnavailableError as error:
        notes.append(str(error))
        return None


@contextmanager
def _subject(bundle: Path, manifest: Manifest, notes: list[str]) -> Iterator[OrtSession]:
    """The bundle in ONNX Runtime; a bfloat16 one through a widened copy, which is noted."""
    from xlstm_export.runtime.bf16_emulation import write_emulation

    if manifest.dtype != "bfloat16":
        yield OrtSession(bundle)
        return
    with tempfile.TemporaryDirectory(prefix="xlstm-export-") as folder:
        session = OrtSession(bundle, model=write_emulation(bundle / MODEL_FILE, Path(folder)))
        session.name += " (emulated)"
        notes.append(
            "bfloat16 emulated: each bfloat16 operation ran in float32 on rounded operands, and "
            "its result was rounded to bfloat16"
        )
        yield session
