"""``triton``: a bundle as a model of Triton Inference Server, in a model repository.

A model that carries states is a sequence: Triton keeps a state for each correlation id, zero at
its start (implicit state management of ONNX Runtime's and TensorRT's backends), and batches
sequences that step at the same time. A model without states is batched dynamically.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from xlstm_export.bundle.bundle import Bundle
from xlstm_export.bundle.manifest import (
    DATA_FILE,
    LENGTHS,
    MODEL_FILE,
    Manifest,
    StateInfo,
    TensorInfo,
)
from xlstm_export.engine.record import EngineRecord, read_record, record_path
from xlstm_export.errors import BundleError, EngineError, OptionError, TargetError
from xlstm_export.native import load_ort_library, trt_library_path
from xlstm_export.output import new_folder
from xlstm_export.serving.pbtxt import Value, Word, to_text

TritonBackend = Literal["onnxruntime", "tensorrt", "python"]
_KINDS = ("auto", "cpu", "gpu")
_TYPES = {
    "float32": "TYPE_FP32", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16",
    "int32": "TYPE_INT32", "int64": "TYPE_INT64",
}  # fmt: skip
_MODEL_PY = '''"""The bundle beside this file, by xlstm-export in the server's Python."""

from xlstm_export.serving.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True)
class TritonOptions:
    """How the model is served. Raises OptionError.

    ``name`` of the model; ``instances`` of it on each device; ``max_rows`` in a batch at most;
    ``max_sequences`` at once; ``idle_seconds`` after which a sequence that is not heard of ends;
    ``delay_microseconds`` that a batch waits for more rows; ``seen_at``: the repository's folder as
    the server sees it.
    """

    name: str
    backend: TritonBackend = "onnxruntime"
    instances: int = 1
    device: str = "auto"
    max_rows: int = 16
    max_sequences: int = 256
    idle_seconds: int = 600
    delay_microseconds: int = 1_000
    seen_at: str | None = None
    engine: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in get_args(TritonBackend):
            known = ", ".join(get_args(TritonBackend))
            raise OptionError("backend", f"{self.backend} is not one of {known}")
        if self.device not in _KINDS:
            raise OptionError("device", f"{self.device} is not one of {', '.join(_KINDS)}")
        if not re.fullmatch(r"[A-Za-z0-9_.\-]+", self.name):
            raise OptionError("name", f"{self.name!r} is no name: letters, digits, _, - and .")
        for name in ("instances", "max_rows", "max_sequences", "idle_seconds"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)} is not 1 or more")
        if self.delay_microseconds < 0:
            raise OptionError("delay_microseconds", "is not 0 or more")
        if (self.engine is not None) != (self.backend == "tensorrt"):
            raise OptionError("engine", "goes with the backend tensorrt, which needs one")

    @property
    def kind(self) -> Word:
        """Where instances are: TensorRT's on the GPU, the others on the CPU unless it is said."""
        chosen = self.device
        if chosen == "auto":
            chosen = "gpu" if self.backend == "tensorrt" else "cpu"
        return Word(f"KIND_{chosen.upper()}")


def triton_repository(
    bundle: str | Path | Bundle,
    output: str | Path,
    *,
    name: str | None = None,
    backend: str = "onnxruntime",
    engine: str | None = None,
    device: str = "auto",
    instances: int = 1,
    max_rows: int = 16,
    max_sequences: int = 256,
    idle_seconds: int = 600,
    delay_microseconds: int = 1_000,
    seen_at: str | None = None,
) -> Path:
    """Add ``bundle`` to a model repository of Triton Inference Server; returns the model's folder.

    - ``output``: the repository, made where it is not there; ``name`` of the model: default the
      bundle's folder.
    - ``backend``: "onnxruntime"; "tensorrt", with ``engine``, a name in the bundle's folder of
      engines or a file; or "python", this package in the server's Python, which serves bundles that
      the others cannot, on the CPU.
    - ``device``: "cpu", "gpu" or "auto", TensorRT's being the GPU; ``instances`` on each.
    - ``max_rows`` in a batch, which waits ``delay_microseconds`` for more; of an engine no more
      than it was built for, as its record tells. Of a model with states ``max_sequences`` at once,
      each until its end or ``idle_seconds`` without a request.
    - ``seen_at``: the repository's folder as the server sees it, for the path of the native
      library; default: as it is here.

    A model with states is a sequence: requests with its correlation id, the first marked as its
    start. Beside an engine that does not carry its plugins their library is put, where this machine
    has it, for the server to load. Raises BundleError, EngineError, OptionError, TargetError where
    the model is there.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    options = TritonOptions(
        name or opened.path.resolve().name, backend, instances, device, max_rows,  # type: ignore[arg-type]
        max_sequences, idle_seconds, delay_microseconds, seen_at, engine,
    )  # fmt: skip
    return write_repository(opened, Path(output), options)


def write_repository(bundle: Bundle, out: Path, options: TritonOptions) -> Path:
    """As ``triton_repository``."""
    manifest = bundle.manifest
    _check(bundle, options)
    model = out / options.name
    if model.exists():
        raise TargetError(f"{model}: already exists; choose another --name, or delete it")
    seen = PurePosixPath(options.seen_at or str(out.resolve())) / options.name / "1"
    engine = _find_engine(bundle, options) if options.backend == "tensorrt" else None
    with new_folder(model) as work:
        version = work / "1"
        version.mkdir()
        if engine is not None:
            engine.fill(version)
            content = configuration(manifest, options, engine=engine.record)
        else:
            library = _fill(bundle, version, options)
            content = configuration(manifest, options, library and str(seen / library))
        (work / "config.pbtxt").write_text(to_text(content), encoding="utf-8")
    return model


def _check(bundle: Bundle, options: TritonOptions) -> None:
    manifest = bundle.manifest
    if options.backend == "python":
        return
    if manifest.ragged:
        raise BundleError(
            f"{bundle.path}: is ragged, and Triton hands rows of one length together; export it "
            "without --ragged"
        )
    if (
        manifest.dtype == "bfloat16"
        and options.backend == "onnxruntime"
        and options.device != "gpu"
    ):
        raise BundleError(f"{bundle.path}: bfloat16 needs a GPU: --device gpu")


@dataclass(frozen=True)
class _Engine:
    """``record``: what lies beside it; None where nothing does, as of trtexec's."""

    path: Path
    record: EngineRecord | None

    def fill(self, version: Path) -> None:
        """Puts it into ``version``, with the library of its plugins where it does not carry it."""
        shutil.copy(self.path, version / "model.plan")
        library = trt_library_path()
        if library is not None and not (self.record and self.record.plugin_library.embedded):
            shutil.copy(library, version / library.name)


def _find_engine(bundle: Bundle, options: TritonOptions) -> _Engine:
    """Raises EngineError where there is none, or it is of another kind."""
    from xlstm_export.runtime.trt.engine import find_engine

    path = find_engine(bundle.path, str(options.engine))
    record = read_record(path) if record_path(path).is_file() else None
    if record is not None and record.backend != "tensorrt":
        raise EngineError(
            f"{path}: is of {record.backend}, and Triton's backend runs tensorrt's; make one: "
            f"xlstm-export build {bundle.path} --backend tensorrt"
        )
    return _Engine(path, record)


def _fill(bundle: Bundle, version: Path, options: TritonOptions) -> str | None:
    """Puts the model's files into ``version``; returns the native library's name, if there is."""
    if options.backend == "python":
        shutil.copytree(
            bundle.path, version / "bundle", ignore=shutil.ignore_patterns("engines", "reports")
        )
        (version / "model.py").write_text(_MODEL_PY, encoding="utf-8")
        return None
    for name in (MODEL_FILE, DATA_FILE):
        if (bundle.path / name).is_file():
            shutil.copy(bundle.path / name, version / name)
    library = load_ort_library() if options.kind.text == "KIND_CPU" else None
    if library is None:
        return None
    shutil.copy(library.path, version / library.path.name)
    return library.path.name


def configuration(
    manifest: Manifest,
    options: TritonOptions,
    library: str | None = None,
    engine: EngineRecord | None = None,
) -> dict[str, Value]:
    """The model's config.pbtxt. ``library`` is the native library's path on the server.

    The sizes leave the batch out, which Triton puts in front.
    """
    inputs = [t for t in manifest.inputs if t.name != LENGTHS or options.backend == "python"]
    content: dict[str, Value] = {
        "name": options.name,
        "backend": options.backend,
        "max_batch_size": min(options.max_rows, _most_rows(manifest, engine) or options.max_rows),
        "input": [_tensor(t, options) for t in inputs],
        "output": [_tensor(t, options) for t in manifest.outputs],
        "instance_group": _instances(manifest, options, engine),
    }
    if library is not None:
        content["model_operations"] = {"op_library_filename": [library]}
    if options.backend == "onnxruntime":
        content["default_model_filename"] = MODEL_FILE
    if not manifest.carries:
        content["dynamic_batching"] = {"max_queue_delay_microseconds": options.delay_microseconds}
        content["model_warmup"] = _warm_up(manifest)
        return content
    sequences: dict[str, Value] = {
        "max_sequence_idle_microseconds": options.idle_seconds * 1_000_000,
        "oldest": {
            "max_candidate_sequences": options.max_sequences,
            "max_queue_delay_microseconds": options.delay_microseconds,
        },
    }
    if options.backend != "python":
        sequences["state"] = [_state(s) for s in manifest.states]
    content["sequence_batching"] = sequences
    return content


def _most_rows(manifest: Manifest, engine: EngineRecord | None) -> int | None:
    """The batch that every profile of ``engine`` takes; None where that is not known."""
    if engine is None or not engine.profiles:
        return None
    return min(profile[manifest.inputs[0].name].max[0] for profile in engine.profiles)


def _tensor(tensor: TensorInfo, options: TritonOptions) -> dict[str, Value]:
    sizes: list[Value] = [size if isinstance(size, int) else -1 for size in tensor.shape[1:]]
    about: dict[str, Value] = {"name": tensor.name, "data_type": Word(_TYPES[tensor.dtype])}
    if sizes:
        return {**about, "dims": sizes}
    # of a number for each row: Triton takes no tensor without dims; the Python model cuts it itself
    cut: dict[str, Value] = {} if options.backend == "python" else {"reshape": {}}
    return {**about, "dims": [1], **cut}


def _state(state: StateInfo) -> dict[str, Value]:
    sizes: list[Value] = list(state.sized(1)[1:])
    kind = Word(_TYPES[state.dtype])
    return {
        "input_name": state.input,
        "output_name": state.output,
        "data_type": kind,
        "dims": sizes,
        "initial_state": {
            "name": "zero", "data_type": kind, "dims": sizes, "zero_data": True,
        },
    }  # fmt: skip


def _instances(
    manifest: Manifest, options: TritonOptions, engine: EngineRecord | None
) -> Mapping[str, Value]:
    group: dict[str, Value] = {"kind": options.kind, "count": options.instances}
    if options.backend == "tensorrt":
        # without a record: decode and prefill, as build makes them, and trtexec by its command
        count = len(engine.profiles) if engine is not None else 1 + manifest.carries
        group["profile"] = [str(number) for number in range(count)]
    return group


def _warm_up(manifest: Manifest) -> dict[str, Value]:
    """One request of zeros, so that the first of a client finds everything loaded."""
    info = manifest.forecast
    steps = info.context if info is not None else 1
    inputs: list[Value] = []
    for tensor in manifest.inputs:
        sizes = [
            size if isinstance(size, int) else _steps(size, steps, manifest)
            for size in tensor.shape[1:]
        ] or [1]
        value: dict[str, Value] = {
            "data_type": Word(_TYPES[tensor.dtype]), "dims": list(sizes), "zero_data": True,
        }  # fmt: skip
        inputs.append({"key": tensor.name, "value": value})
    return {"name": "zeros", "batch_size": 1, "inputs": inputs}


def _steps(name: str, steps: int, manifest: Manifest) -> int:
    """A size for the dimension ``name``, a sum of parts (a+b) among them."""
    horizon = manifest.forecast.horizon if manifest.forecast is not None else 1
    sizes = {"targets": 1, "past": 1, "known": 1, "horizon": horizon}
    return sum(sizes.get(part, steps) for part in name.split("+"))
