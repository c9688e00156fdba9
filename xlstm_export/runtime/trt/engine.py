"""An engine in TensorRT or TensorRT-RTX: found, checked against its record, and deserialised.

``TensorRTEngine`` needs a GPU to be made; without one only its refusals have been run.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from xlstm_export import __version__
from xlstm_export.bundle.checksum import bundle_sha256, sha256
from xlstm_export.engine.backend import BACKENDS, PACKAGES, TITLES
from xlstm_export.engine.build import ENGINE_FOLDER
from xlstm_export.engine.profiles import Profile, Shape, ShapeRange
from xlstm_export.engine.record import ENGINE_SUFFIX, EngineRecord, read_record, record_path
from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, EngineError
from xlstm_export.native import FOLDER_VARIABLE, load_library, trt_library_path

_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32",
    "INT8": "int8", "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
_LINES = 3


@dataclass(frozen=True)
class EngineTensor:
    """One input or output: element type by numpy name."""

    dtype: str
    is_input: bool


class Engine(Protocol):
    """What a session needs of an engine; tests put ONNX Runtime behind it."""

    @property
    def title(self) -> str:
        """Package and version that run it."""
        ...

    @property
    def tensors(self) -> Mapping[str, EngineTensor]:
        """Inputs and outputs, by name."""
        ...

    @property
    def profiles(self) -> list[Profile]:
        """Ranges of the inputs' shapes."""
        ...

    def output_shapes(self, profile: int, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """Shapes of the outputs for these inputs. The next ``enqueue`` is for them."""
        ...

    def enqueue(self, profile: int, addresses: Mapping[str, int], stream: int) -> None:
        """Queue one call on ``stream``: an address for each tensor."""
        ...

    def can_capture(self, profile: int, stream: int) -> bool:
        """Whether the call that was queued last may be captured as a CUDA graph."""
        ...

    def close(self) -> None:
        """Give weights and activations back, when all calls are done; none may follow."""
        ...


def find_engine(bundle: Path, engine: str) -> Path:
    """The engine that ``engine`` names: a file, or a target in the bundle's folder of engines.

    Raises EngineError that lists those there are.
    """
    folder = bundle / ENGINE_FOLDER
    for path in (Path(engine), folder / engine, folder / f"{engine}{ENGINE_SUFFIX}"):
        if path.is_file() and path.name.endswith(ENGINE_SUFFIX):
            return path
    names = sorted(path.name.removesuffix(ENGINE_SUFFIX) for path in folder.glob("*.engine"))
    there = f"there are {', '.join(names)}" if names else f"make one: xlstm-export build {bundle}"
    raise EngineError(f"{engine}: no engine of {bundle}; {there}")


def engine_of_backend(bundle: Path, backend: str) -> str:
    """The bundle's only engine of ``backend``, by name. Raises EngineError for none or several."""
    engines = sorted((bundle / ENGINE_FOLDER).glob(f"*{ENGINE_SUFFIX}"))
    names = [
        path.name.removesuffix(ENGINE_SUFFIX)
        for path in engines
        if read_engine_record(path).backend == backend
    ]
    if len(names) == 1:
        return names[0]
    if names:
        raise EngineError(f"{bundle}: engines {', '.join(names)} are of {backend}; name one")
    raise EngineError(
        f"{bundle}: no engine of {backend}; make one: xlstm-export build {bundle} "
        f"--backend {backend}"
    )


def check_files(bundle: Path, path: Path, record: EngineRecord) -> None:
    """The engine is whole, and of this bundle: both are read to the end.

    Raises EngineError.
    """
    again = f"build again: xlstm-export build {bundle} --backend {record.backend}"
    if sha256(path) != record.engine_sha256:
        raise EngineError(f"{path}: not the engine that {record_path(path).name} is about; {again}")
    if bundle_sha256(bundle) != record.bundle_sha256:
        raise EngineError(
            f"{path}: was built from another graph or other weights than those in {bundle}; {again}"
        )


def check_capability(path: Path, record: EngineRecord, capability: str) -> None:
    """Raises EngineError where the record says that the engine is for other GPUs."""
    built_for = record.compute_capability
    if built_for and "unknown" not in built_for and capability not in built_for:
        option = f" --compute-capability {capability}" if record.backend == "tensorrt_rtx" else ""
        raise EngineError(
            f"{path}: built for compute capability {', '.join(built_for)}, and this GPU has "
            f"{capability}: build one for it with: xlstm-export build --backend "
            f"{record.backend}{option}"
        )


def import_tensorrt(backend: str) -> tuple[Any, str]:
    """The module of ``backend``, and its title. Raises BackendUnavailableError, EngineError."""
    name = next((name for name in BACKENDS if name == backend), None)
    if name is None:
        raise EngineError(f"an engine of backend {backend!r}: this version knows {BACKENDS}")
    try:
        return importlib.import_module(name), TITLES[name]
    except ImportError as error:
        raise BackendUnavailableError(
            f"this engine runs in {TITLES[name]}, which is not installed: {install(PACKAGES[name])}"
        ) from error


def load_plugins(runtime: Any, record: EngineRecord, title: str) -> None:
    """Register the plugins of an engine that does not carry them, for ``runtime`` alone.

    The registry of the process would refuse them for a second engine. Raises
    BackendUnavailableError where the library is missing or of another version.
    """
    if record.plugin_library.embedded or not record.plugins:
        return
    path = trt_library_path()
    if path is None:
        raise BackendUnavailableError(
            f"this engine needs the plugin library {record.plugin_library.name}, which is not "
            f"here: make wheel in a checkout, or name its folder in {FOLDER_VARIABLE}; an engine "
            "built by this version carries it"
        )
    version = record.plugin_library.version
    wanted = f"and the engine was built with {version}"
    load_library(path, version, wanted, f"xlstm-export is {__version__}: build again")
    if not runtime.get_plugin_registry().load_library(str(path)):
        raise BackendUnavailableError(f"{path}: {title} refused it")


class TensorRTEngine:
    """A deserialised engine with one execution context per profile.

    It runs the plugin code an engine carries: load only engines that you trust. Raises EngineError,
    BackendUnavailableError.
    """

    def __init__(self, path: Path, record: EngineRecord, trt: Any, title: str) -> None:
        self._path = path
        self._log = _make_log(trt)
        self.title = f"{title} {trt.__version__}"
        # the runtime must outlive the engine
        self._runtime = trt.Runtime(self._log)
        load_plugins(self._runtime, record, self.title)
        self._runtime.engine_host_code_allowed = record.plugin_library.embedded
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise EngineError(self._refusal(record, trt.__version__))
        self._engine = engine
        self._contexts: dict[int, Any] = {}
        # the default strategy reserves for the largest profile in every context
        self._strategy = trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        self.tensors = {name: self._tensor(trt, name) for name in self._names()}
        self.profiles = [self._profile(index) for index in range(engine.num_optimization_profiles)]

    def output_shapes(self, profile: int, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """As ``Engine.output_shapes``."""
        context = self._context(profile)
        for name, shape in inputs.items():
            self._demand(context.set_input_shape(name, shape), f"input {name} {list(shape)}")
        outputs = [name for name, tensor in self.tensors.items() if not tensor.is_input]
        shapes = {name: tuple(context.get_tensor_shape(name)) for name in outputs}
        unknown = [name for name, shape in shapes.items() if any(size < 0 for size in shape)]
        self._demand(not unknown, f"the shapes of {', '.join(unknown)}")
        return shapes

    def enqueue(self, profile: int, addresses: Mapping[str, int], stream: int) -> None:
        """As ``Engine.enqueue``."""
        context = self._context(profile)
        for name, address in addresses.items():
            self._demand(context.set_tensor_address(name, address), f"the address of {name}")
        self._demand(context.execute_async_v3(stream), "the call")

    def can_capture(self, profile: int, stream: int) -> bool:
        """As ``Engine.can_capture``: TensorRT-RTX says it, TensorRT has no word for it."""
        says = getattr(self._context(profile), "is_stream_capturable", None)
        return says is None or bool(says(stream))

    def close(self) -> None:
        """As ``Engine.close``."""
        self._contexts.clear()
        self._engine = None
        self._runtime = None

    def _context(self, profile: int) -> Any:
        """Its context, made on first use: two profiles never share one, so none is switched."""
        if profile not in self._contexts:
            context = self._engine.create_execution_context(self._strategy)
            self._demand(context is not None, "an execution context (is the GPU's memory full?)")
            # on the default stream, which the session's stream keeps order with
            chosen = context.set_optimization_profile_async(profile, 0)
            self._demand(chosen, f"profile {profile}")
            self._contexts[profile] = context
        return self._contexts[profile]

    def _names(self) -> list[str]:
        return [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]

    def _tensor(self, trt: Any, name: str) -> EngineTensor:
        if self._engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise EngineError(f"{self._path}: {name} is on the host; build again")
        dtype = self._engine.get_tensor_dtype(name).name
        is_input = self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        return EngineTensor(_DTYPES.get(dtype, dtype), is_input)

    def _profile(self, index: int) -> Profile:
        ranges = {
            name: self._engine.get_tensor_profile_shape(name, index)
            for name, tensor in self.tensors.items()
            if tensor.is_input
        }
        return {name: ShapeRange(*map(tuple, shapes)) for name, shapes in ranges.items()}

    def _demand(self, ok: bool, what: str) -> None:
        if not ok:
            raise EngineError(
                "\n".join([f"{self._path}: {self.title} refused {what}", *self._log.taken()])
            )

    def _refusal(self, record: EngineRecord, version: str) -> str:
        lines = [f"{self._path}: {self.title} cannot load it"]
        if version != record.builder_version:
            lines[0] += f"; {record.builder_version} built it: build again, or install that version"
        return "\n".join([*lines, *self._log.taken()])


def read_engine_record(path: Path) -> EngineRecord:
    """The record beside the engine at ``path``. Raises EngineError."""
    return read_record(record_path(path))


def _make_log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps the last errors for the one who raises."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self._errors = [*self._errors, message][-_LINES:]

        def taken(self) -> list[str]:
            """What was kept, once."""
            lines, self._errors = self._errors, []
            return lines

    return Log()
