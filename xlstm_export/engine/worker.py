"""The process that builds: ``python -m xlstm_export.engine.worker REQUEST.json EVENTS``.

It is one of its own because TensorRT ends the process on some errors, and because what TensorRT-RTX
needs must be in the environment when the process starts. REQUEST.json is a ``Request``, its folder
is scratch space; EVENTS is the number of an open pipe that takes one JSON document a line:
progress, and at the end a result or an error. What builder and plugins log goes to stdout, stderr.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import mmap
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from xlstm_export.bundle.manifest import DATA_FILE
from xlstm_export.engine.backend import OLDEST, TITLES, BackendName, device_capability
from xlstm_export.errors import EngineError, XlstmExportError
from xlstm_export.native import load_library
from xlstm_export.ops.catalog import DOMAIN
from xlstm_export.output import new_file


@dataclass(frozen=True)
class Request:
    """What to build."""

    backend: BackendName
    model: str
    plugin_library: str
    engine: str
    """File to write."""
    profiles: list[dict[str, dict[str, list[int]]]]
    """For each profile, for each input: min, opt, max."""
    nodes: list[tuple[str, str]]
    """Name and type of every recurrence: each must become a plugin."""
    compute_capabilities: list[tuple[int, int]]
    timing_cache: str | None


class Events:
    """The pipe to the process that waits for the engine."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8")

    def send(self, **event: Any) -> None:
        """One document on the pipe."""
        print(json.dumps(event), file=self._pipe, flush=True)


def main() -> None:
    """Build, and say on the pipe how it went."""
    path = Path(sys.argv[1])
    request = Request(**json.loads(path.read_text(encoding="utf-8")))
    events = Events(int(sys.argv[2]))
    try:
        events.send(result=build(request, path.parent, events))
    except XlstmExportError as error:
        events.send(error=str(error))
    except Exception as error:
        what = str(error).strip() or type(error).__name__
        events.send(error=f"{request.model}: {TITLES[request.backend]} refused it: {what}")


def build(request: Request, scratch: Path, events: Events) -> dict[str, Any]:
    """Write the engine. Raises EngineError, and whatever builder and Polygraphy raise."""
    trt = importlib.import_module(request.backend)
    _check_version(request.backend, trt)
    _load_plugins(trt, request.plugin_library)
    from polygraphy.backend.trt import engine_bytes_from_network, network_from_onnx_path

    events.send(progress=["reading the graph", 0, 0])
    typed = hasattr(
        trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"
    )  # TensorRT 11 knows no other
    model = _without_bodies(Path(request.model), scratch)
    builder, network, parser = network_from_onnx_path(str(model), strongly_typed=typed)
    _check_plugins(trt, network, request.nodes)
    config = _make_config(trt, request, events)(builder, network)
    config.plugins_to_serialize = [request.plugin_library]
    content = engine_bytes_from_network((builder, network, parser), lambda *_: config)
    Path(request.engine).write_bytes(content)
    notice = _save_timing_cache(config, Path(request.timing_cache)) if request.timing_cache else ""
    embedded = _holds(Path(request.engine), Path(request.plugin_library))
    return {"builder_version": trt.__version__, "embedded": embedded, "notice": notice}


def _check_version(backend: BackendName, trt: Any) -> None:
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if version < OLDEST[backend]:
        oldest = ".".join(map(str, OLDEST[backend]))
        title = f"{TITLES[backend]} {trt.__version__}"
        raise EngineError(f"{title} is installed; {oldest} or later is needed")


def _load_plugins(trt: Any, library: str) -> None:
    load_library(Path(library), cure="build it again with make wheel")
    if not trt.get_plugin_registry().load_library(library):
        raise EngineError(f"{library}: the builder refused its plugins")


def _without_bodies(model: Path, scratch: Path) -> Path:
    """The graph without the function bodies of our operators, beside a link to its weights.

    Some versions of the parser (TensorRT 10.0's) take a body before they look for a plugin.
    """
    graph = onnx.load(str(model), load_external_data=False)
    kept = [function for function in graph.functions if function.domain != DOMAIN]
    del graph.functions[:]
    graph.functions.extend(kept)
    onnx.save(graph, str(scratch / model.name))
    data = model.with_name(DATA_FILE)
    if data.is_file():
        (scratch / DATA_FILE).symlink_to(data)
    return scratch / model.name


def _check_plugins(trt: Any, network: Any, nodes: list[tuple[str, str]]) -> None:
    """Every recurrence is a plugin: none was lost to a function body or a built-in."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    plugins = {layer.name for layer in layers if layer.type == trt.LayerType.PLUGIN_V3}
    lost = [f"{name} ({op_type})" for name, op_type in nodes if name not in plugins]
    if lost:
        raise EngineError(
            f"not computed by a plugin: {', '.join(lost)}; export again with this version"
        )


def _save_timing_cache(config: Any, path: Path) -> str:
    """Write what was read and what was measured; why it failed, which costs no engine, or empty.

    Polygraphy would do it before it gives the engine away.
    """
    try:
        content = config.get_timing_cache().serialize()
        with new_file(path) as work:
            work.write_bytes(content)
    except Exception as error:
        return f"--timing-cache {path}: was not saved ({error}); the engine is not affected"
    return ""


def _holds(engine: Path, library: Path) -> bool:
    """Whether the engine carries the library: looked for, since builders decide themselves."""
    with open(engine, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(library.read_bytes()) >= 0


def _make_config(trt: Any, request: Request, events: Events) -> Any:
    from polygraphy.backend.trt import CreateConfig, Profile

    profiles = []
    for ranges in request.profiles:
        profile = Profile()
        for name, shapes in ranges.items():
            profile.add(name, min=shapes["min"], opt=shapes["opt"], max=shapes["max"])
        profiles.append(profile)
    options: dict[str, Any] = {"profiles": profiles, "progress_monitor": _monitor(trt, events)}
    if request.backend == "tensorrt":
        return CreateConfig(**options, load_timing_cache=request.timing_cache)
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

    wanted = [(major, minor) for major, minor in request.compute_capabilities]
    known = [name[2:] for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    for major, minor in wanted:
        if f"{major}{minor}" not in known:
            names = ", ".join(map(str, sorted(_numbers(known))))
            title = f"{TITLES[request.backend]} {trt.__version__}"
            raise EngineError(f"{title} builds for compute capability {names}, not {major}.{minor}")
    if not wanted:
        _check_device(trt, known)
    return CreateConfigRTX(**options, compute_capabilities=wanted or None)


def _check_device(trt: Any, known: list[str]) -> None:
    """Raises EngineError where the engine could not run on the GPU that is here.

    TensorRT-RTX builds it all the same, for the GPUs it knows and for later ones.
    """
    here = device_capability()
    if here is None or here.replace(".", "") in known or float(here) > max(_numbers(known)):
        return
    names = ", ".join(map(str, sorted(_numbers(known))))
    raise EngineError(
        f"TensorRT-RTX {trt.__version__} runs on compute capability {names} and later ones, not on "
        f"{here}, which this GPU has: build with --backend tensorrt, or run the bundle in ONNX "
        "Runtime there (--backend ort-cuda); --compute-capability builds for another GPU"
    )


def _numbers(names: list[str]) -> list[float]:
    """8.9 from 89."""
    return [float(f"{name[:-1]}.{name[-1]}") for name in names]


def _monitor(trt: Any, events: Events) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Passes the outermost phase on."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._outermost: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._outermost[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self._outermost.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._outermost:
                events.send(progress=["building", step, self._outermost[phase_name]])
            return True

    return Monitor()


def request_text(request: Request) -> str:
    """The request as REQUEST.json holds it."""
    return json.dumps(dataclasses.asdict(request))


if __name__ == "__main__":
    main()
