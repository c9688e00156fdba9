"""The story from checkpoint to verdict: each command is one function here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xlstm_export.bundle import copy_companions, describe_graph
from xlstm_export.engine.build import BuildOptions, Built, build_engine, make_plan
from xlstm_export.engine.command import trtexec_command
from xlstm_export.engine.record import ENGINE_SUFFIX, describe_engine, read_record
from xlstm_export.errors import BackendUnavailableError
from xlstm_export.families.registry import find_family
from xlstm_export.families.source import Checkpoint, Source
from xlstm_export.families.storage import WEIGHT_SUFFIXES, names_left_out
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.model.checksum import bundle_sha256, data_bytes, sha256
from xlstm_export.model.manifest import Manifest, TensorInfo, read_manifest, write_manifest
from xlstm_export.model.summary import describe, summarise
from xlstm_export.runtime.generate import Generation, open_generation
from xlstm_export.target import check_target, new_folder, write_text
from xlstm_export.validation.report import Report, to_json, to_markdown

REPORTS = "reports"
"""Folder of a bundle with what validate says of it."""

_FILES = {
    True: "as export wrote them",
    False: "CHANGED since export wrote them",
    None: "of a bundle that does not know their digest",
}

Progress = Callable[[str, int, int], None]
"""Called with what is going on, steps done, steps in all."""


__all__ = [
    "REPORTS", "Exported", "Facts", "Generation", "build", "build_command", "export",
    "inspect_bundle", "inspect_checkpoint", "inspect_engine", "open_generation", "read_checkpoint",
    "validate", "write_report",
]  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """What an export made."""

    bundle: Path
    manifest: Manifest
    nodes: int
    """Nodes of the graph, each recurrence counted as one."""
    left_out: tuple[str, ...]
    """Tensors of the source that are outside its prefix."""


def read_checkpoint(source: Source, family: str = "auto") -> Checkpoint:
    """Detect and read ``source``. Raises CheckpointError, UnsupportedModelError."""
    return find_family(source, family).read(source)


@dataclass(frozen=True)
class Facts:
    """What something holds."""

    data: dict[str, Any]
    """For programs: numbers, whole hashes, the keys of the files they come from."""
    words: Mapping[str, str | list[str]]
    """For people."""


def inspect_checkpoint(source: Source, family: str = "auto") -> Facts:
    """Facts about a checkpoint; its numbers are not read."""
    checkpoint = read_checkpoint(source, family)
    where, files = str(source.path), [str(path) for path in checkpoint.files]
    data = summarise(checkpoint.spec, checkpoint.weights)
    words = describe(checkpoint.spec, checkpoint.weights)
    return Facts(
        {"source": where, **data, "files": files}, {"source": where, **words, "files": files}
    )


def inspect_bundle(bundle: Path) -> Facts:
    """Facts about a bundle: what its manifest says, and whether its files are still those."""
    manifest = read_manifest(bundle)
    digest = bundle_sha256(bundle)
    is_unchanged = digest == manifest.sha256 if manifest.sha256 else None
    verdict, report = _report_about(bundle, digest)
    words: dict[str, str | list[str]] = {
        "bundle": str(bundle),
        "family": manifest.family,
        "dtype": manifest.dtype,
        "opset": str(manifest.opset),
        "operators": f"{manifest.ops.domain} {manifest.ops.version}",
        "runs on": ", ".join(manifest.runs_on),
        "source": f"{manifest.source.name} (sha256 {manifest.source.sha256[:16]}…)",
        "files": _FILES[is_unchanged],
        "validation": report,
        "inputs": [_tensor_line(t) for t in manifest.inputs],
        "outputs": [_tensor_line(t) for t in manifest.outputs],
        "states": [
            f"{s.input} -> {s.output}  {s.dtype} {_sizes(s.shape)}" for s in manifest.states
        ],
    }
    found = {"is_unchanged": is_unchanged, "verdict": verdict}
    return Facts({"bundle": str(bundle), **asdict(manifest), **found}, words)


def _report_about(bundle: Path, digest: str) -> tuple[str | None, str]:
    """The verdict of the report in ``bundle`` where it is about files of ``digest``; in words."""
    path = bundle / REPORTS / "validation.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        verdict, about = str(content["verdict"]), content["bundle_sha256"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None, "none in the bundle"
    if about != digest:
        return None, f"{path.name} is about OTHER files: validate again"
    return verdict, verdict


def inspect_engine(path: Path) -> Facts:
    """Facts about an engine, from its record. Raises EngineError."""
    record = read_record(path)
    engine = path.with_suffix(ENGINE_SUFFIX)
    is_unchanged = engine.is_file() and sha256(engine) == record.engine_sha256
    state = "as build wrote it" if is_unchanged else "NOT the one of this record: build again"
    words = {"engine": str(path), **describe_engine(record), "file": state}
    return Facts({"engine": str(path), **asdict(record), "is_unchanged": is_unchanged}, words)


def _tensor_line(tensor: TensorInfo) -> str:
    return f"{tensor.name}  {tensor.dtype} {_sizes(tensor.shape)}"


def _sizes(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


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
    from xlstm_export.lowering.lower import lower_model
    from xlstm_export.lowering.write import check_model, write_model

    check_target(out, overwrite, source.path)
    checkpoint = read_checkpoint(source, family)
    model = lower_model(checkpoint.spec, checkpoint.weights, options)
    manifest = describe_graph(model, checkpoint, source, options)
    with new_folder(out, overwrite) as folder:
        path = write_model(model, folder, progress)
        check_model(path)
        manifest = replace(manifest, sha256=bundle_sha256(folder), data_bytes=data_bytes(folder))
        write_manifest(manifest, folder)
        copy_companions(source, folder)
    weight_files = [path for path in checkpoint.files if path.suffix in WEIGHT_SUFFIXES]
    left_out = names_left_out(weight_files, source.prefix) if source.prefix else []
    return Exported(out, manifest, len(model.graph), tuple(left_out))


def build(bundle: Path, options: BuildOptions, progress: Progress | None = None) -> Built:
    """Build an engine of ``bundle`` into its folder ``engines``; the recurrences are plugins.

    Raises BundleError, EngineError, BackendUnavailableError, TargetError.
    """
    return build_engine(bundle, options, progress)


def build_command(bundle: Path, options: BuildOptions) -> str:
    """What ``build`` would do, as a command of NVIDIA's tools, whether or not they are here."""
    return trtexec_command(make_plan(bundle, options, options.backend or "tensorrt"))


def validate(
    bundle: Path,
    source: Source,
    *,
    family: str = "auto",
    upstream: bool = True,
    native: bool = True,
    engine: str | None = None,
    batch: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Compare ``bundle`` with the upstream module of ``source``.

    The bundle runs in ONNX Runtime, or in TensorRT by ``engine``: a target's name or a file.
    Without the upstream package, or with ``upstream`` False, the reference is our own float64
    model and the verdict at most ``self-consistent``. With ``native`` False the function bodies
    are compared, also where native kernels are installed. Raises BundleError, CheckpointError,
    UnsupportedModelError, EngineError, BackendUnavailableError.
    """
    try:
        from xlstm_export.validation.validate import validate_bundle
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"validate computes references with {error.name}, which is not installed: "
            "pip install 'xlstm-export[validate]'"
        ) from error
    return validate_bundle(
        bundle, source, find_family(source, family),
        upstream=upstream, native=native, engine=engine, batch=batch, seed=seed, progress=progress,
    )  # fmt: skip


def write_report(report: Report, folder: Path, engine: str | None = None) -> Path:
    """Write ``report`` into ``folder`` as JSON and Markdown; returns the latter's path.

    That of an engine has a name of its own. Raises TargetError.
    """
    name = f"validation-{Path(engine).name.removesuffix(ENGINE_SUFFIX)}" if engine else "validation"
    write_text(folder / f"{name}.json", to_json(report))
    path = folder / f"{name}.md"
    write_text(path, to_markdown(report))
    return path
