"""``build``: a bundle to an engine and its record."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from xlstm_export import __version__
from xlstm_export.bundle.checksum import bundle_sha256, sha256
from xlstm_export.bundle.manifest import CONTINUE_FILE, DATA_FILE, MODEL_FILE, read_manifest
from xlstm_export.engine.backend import (
    BackendName,
    choose_backend,
    device_capability,
    parse_backend,
)
from xlstm_export.engine.process import run_worker
from xlstm_export.engine.profiles import (
    Profile,
    ShapeOptions,
    continued_profile,
    make_profiles,
    parse_shapes,
)
from xlstm_export.engine.record import (
    ENGINE_SUFFIX,
    FORMAT_VERSION,
    EngineRecord,
    PluginInfo,
    PluginLibrary,
    record_path,
    to_json,
)
from xlstm_export.engine.worker import Request
from xlstm_export.errors import BackendUnavailableError, BundleError, EngineError, OptionError
from xlstm_export.native import trt_library_path
from xlstm_export.ops.catalog import DOMAIN
from xlstm_export.output import new_file, write_text
from xlstm_export.progress import Progress

ENGINE_FOLDER = "engines"
CONTINUE_FOLDER = "continue"
"""Below ``ENGINE_FOLDER``: engines of the calls that go on, by the names of those that begin."""


@dataclass(frozen=True)
class BuildOptions:
    """What to build an engine for."""

    backend: BackendName | None = None
    """None: the one that is installed."""
    compute_capabilities: tuple[tuple[int, int], ...] = ()
    """TensorRT-RTX only; empty: its default set."""
    shapes: ShapeOptions = field(default_factory=ShapeOptions)
    timing_cache: Path | None = None


_SHAPES = ("min_shapes", "opt_shapes", "max_shapes")


def make_build_options(
    backend: str | None = None,
    *,
    compute_capabilities: Sequence[str] = (),
    timing_cache: str | Path | None = None,
    max_batch_size: int | None = None,
    max_input_len: int | None = None,
    **shapes: Mapping[str, Sequence[int]] | Iterable[str] | None,
) -> BuildOptions:
    """Options from plain words and numbers; ``shapes`` are min_shapes, opt_shapes, max_shapes.

    ``backend``: rtx is short for tensorrt_rtx. Capabilities are spelled 8.9, 89 or sm_89; shapes
    {name: sizes}, or as trtexec and Polygraphy spell them. Raises OptionError, EngineError.
    """
    if unknown := sorted(set(shapes) - set(_SHAPES)):
        raise OptionError(unknown[0], "no such option of a build")
    return BuildOptions(
        backend=None if backend is None else parse_backend(backend),
        compute_capabilities=tuple(map(_capability, compute_capabilities)),
        shapes=ShapeOptions(
            max_batch_size, max_input_len, *(_shapes(shapes.get(name)) for name in _SHAPES)
        ),
        timing_cache=None if timing_cache is None else Path(timing_cache),
    )


def _shapes(
    given: Mapping[str, Sequence[int]] | Iterable[str] | None,
) -> dict[str, tuple[int, ...]]:
    if isinstance(given, Mapping):
        return {name: tuple(int(size) for size in sizes) for name, sizes in given.items()}
    return parse_shapes(given or ())


def _capability(word: str) -> tuple[int, int]:
    """(8, 9) from 8.9, 89 or sm_89."""
    match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", str(word).strip().lower())
    if not match:
        raise OptionError("compute_capability", f"{word}: write 8.9")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Built:
    """An engine that was made: its file, and the record that lies beside it as JSON."""

    engine: Path
    record: EngineRecord
    notice: str = ""
    """What went wrong beside the engine, which is whole."""
    continuation: Built | None = None
    """Of the calls that go on from states, where they are another graph."""


@dataclass(frozen=True)
class Plan:
    """All that is known before the builder starts."""

    bundle: Path
    file: str
    """The graph: model.onnx or continue.onnx."""
    backend: BackendName
    library: Path
    profiles: list[Profile]
    nodes: list[tuple[str, str]]
    options: BuildOptions

    @property
    def engine(self) -> Path:
        """``engines/<target>.engine``: builder and GPUs are the target.

        Of the graph that goes on, ``engines/continue/<target>.engine``.
        """
        capabilities = self.options.compute_capabilities
        names = [f"sm{major}{minor}" for major, minor in capabilities]
        if self.backend == "tensorrt" and (capability := device_capability()):
            names = [f"sm{capability.replace('.', '')}"]
        target = "-".join([self.backend, *names])
        name = f"{target}{ENGINE_SUFFIX}"
        folder = self.bundle / ENGINE_FOLDER
        return continued_engine(folder / name) if self.file == CONTINUE_FILE else folder / name


def continued_engine(engine: Path) -> Path:
    """Where the engine of the calls that go on lies, ``engine`` being that of those that begin."""
    return engine.parent / CONTINUE_FOLDER / engine.name


def build_engine(bundle: Path, options: BuildOptions, progress: Progress | None = None) -> Built:
    """Build an engine of ``bundle``: complete with its record, or not there at all.

    Where calls that go on are another graph, its engine is built before: never one that begins
    without the other. Raises BundleError, EngineError, BackendUnavailableError, TargetError.
    """
    plan, *continuing = make_plans(bundle, options, choose_backend(options.backend))
    going_on = [_build(other, progress) for other in continuing]
    return replace(_build(plan, progress), continuation=going_on[0] if going_on else None)


def _build(plan: Plan, progress: Progress | None) -> Built:
    path = plan.engine
    with new_file(path) as work:
        found = run_worker(_request(plan, work), progress)
        if progress is not None:
            progress("checksums", 0, 0)
        record = _record(plan, found, sha256(work))
        record_path(path).unlink(missing_ok=True)  # never an engine beside another one's record
    write_text(record_path(path), to_json(record))
    return Built(path, record, found["notice"])


def make_plans(bundle: Path, options: BuildOptions, backend: BackendName) -> list[Plan]:
    """Check what can be checked before the builder starts. Raises as ``build_engine``.

    The graph of the bundle, and that of the calls that go on where it is another.
    """
    manifest = read_manifest(bundle)
    if backend == "tensorrt" and options.compute_capabilities:
        raise EngineError(
            "--compute-capability is for --backend tensorrt_rtx: TensorRT builds for the GPU of "
            "the machine it runs on"
        )
    if backend == "tensorrt_rtx" and options.timing_cache is not None:
        raise EngineError("--timing-cache is for --backend tensorrt: TensorRT-RTX keeps none")
    if options.timing_cache is not None:
        _check_timing_cache(options.timing_cache)
    library = trt_library_path()
    if library is None:
        raise BackendUnavailableError(
            "the TensorRT plugins are not built: make wheel in a checkout, on a machine with "
            "CUDA's nvcc; XLSTM_LIBRARY_DIR may name the folder of libxlstm_trt.so"
        )
    profiles = {MODEL_FILE: make_profiles(manifest, options.shapes)}
    if manifest.continuation is not None:
        begun = profiles[MODEL_FILE]
        profiles[CONTINUE_FILE] = [continued_profile(manifest, profile) for profile in begun]
    return [
        Plan(bundle, file, backend, library, ranges, _read_nodes(bundle, file), options)
        for file, ranges in profiles.items()
    ]


def _check_timing_cache(path: Path) -> None:
    """It can be read and replaced, which is known before hours of building. Raises EngineError."""
    cure = "name a file in a folder that is there and yours"
    if path.exists() and not path.is_file():
        raise EngineError(f"--timing-cache {path}: is no file; {cure}")
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
        if path.exists():
            path.open("rb").close()
    except OSError as error:
        raise EngineError(f"--timing-cache {path}: {error.strerror or error}; {cure}") from error


def _read_nodes(bundle: Path, file: str) -> list[tuple[str, str]]:
    """Name and type of every node of our domain. Raises BundleError, EngineError."""
    path = bundle / file
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        raise BundleError(f"{path}: cannot be read ({error}); export again") from error
    external = any(t.data_location == TensorProto.EXTERNAL for t in graph.initializer)
    if external and not (bundle / DATA_FILE).is_file():
        raise BundleError(f"{bundle / DATA_FILE}: is missing, it holds the weights; export again")
    if double := _double(graph):
        raise EngineError(
            f"{path}: {double} is float64, which TensorRT would compute in float32: export with "
            "--dtype fp32, fp16 or bf16"
        )
    return [(node.name, node.op_type) for node in graph.node if node.domain == DOMAIN]


def _double(graph: onnx.GraphProto) -> str:
    """Name of a float64 tensor or cast of the graph; empty where there is none."""
    infos = (*graph.input, *graph.output, *graph.value_info)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to":  # Cast
                types[node.output[0]] = attribute.i
            elif attribute.name == "value":  # Constant
                types[node.output[0]] = attribute.t.data_type
    return next((name for name, kind in types.items() if kind == TensorProto.DOUBLE), "")


def _request(plan: Plan, work: Path) -> Request:
    cache = plan.options.timing_cache
    return Request(
        backend=plan.backend,
        model=str((plan.bundle / plan.file).resolve()),
        plugin_library=str(plan.library.resolve()),
        engine=str(work.resolve()),
        profiles=[{name: asdict(shapes) for name, shapes in p.items()} for p in plan.profiles],
        nodes=plan.nodes,
        compute_capabilities=list(plan.options.compute_capabilities),
        timing_cache=str(cache.resolve()) if cache else None,
    )


def _record(plan: Plan, found: dict[str, Any], engine_sha256: str) -> EngineRecord:
    capabilities = [f"{major}.{minor}" for major, minor in plan.options.compute_capabilities]
    if plan.backend == "tensorrt":
        capabilities = [device_capability() or "unknown"]
    implementation = f"{plan.library.stem} {__version__}"
    return EngineRecord(
        format_version=FORMAT_VERSION,
        backend=plan.backend,
        builder_version=found["builder_version"],
        compute_capability=capabilities,
        profiles=plan.profiles,
        plugins=[PluginInfo(name, op_type, implementation) for name, op_type in plan.nodes],
        plugin_library=PluginLibrary(
            plan.library.name, __version__, sha256(plan.library), found["embedded"]
        ),
        bundle_sha256=bundle_sha256(plan.bundle),
        engine_sha256=engine_sha256,
    )
