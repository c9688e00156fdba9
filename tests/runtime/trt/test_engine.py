"""Our calls of TensorRT's Python interface, on a module that behaves like it.

The numbers are ONNX Runtime's; that real TensorRT takes the same calls is a matter for a GPU.
``test_trt_refusals`` holds the names used here against the real package.
"""

from __future__ import annotations

import enum
import gc
import shutil
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from tests.runtime.trt.host_device import (
    HostDevice,
    OrtEngine,
    assert_same_states,
    ids,
    reference_session,
    run,
    some_record,
)
from xlstm_export.bundle.checksum import bundle_sha256, sha256
from xlstm_export.engine.record import PluginLibrary, to_json
from xlstm_export.errors import EngineError
from xlstm_export.runtime.trt import session as engine_sessions
from xlstm_export.runtime.trt.engine import TensorRTEngine
from xlstm_export.runtime.trt.session import TrtSession, open_engine

NAMES = {"float32": "FLOAT", "int64": "INT64", "int32": "INT32"}


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class ILogger:
    Severity = Severity


class Context:
    """``IExecutionContext``."""

    def __init__(self, ort: OrtEngine, log: Any) -> None:
        self.profile = -1
        self.refuses = ""
        self._ort, self._log = ort, log
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def _take(self, call: str) -> bool:
        if self.refuses == call:
            self._log.log(Severity.WARNING, "not worth telling")
            self._log.log(Severity.ERROR, f"In {call}: a reason")
        return self.refuses != call

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream == 0
        self.profile = profile
        return self._take("profile")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return self._take("shape")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self._ort.output_shapes(self.profile, self._shapes)[name]
        return (-1, *shape[1:]) if self.refuses == "unknown" else shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return self._take("address")

    def execute_async_v3(self, stream: int) -> bool:
        self._ort.output_shapes(self.profile, self._shapes)
        self._ort.enqueue(self.profile, dict(self._addresses), stream)
        return self._take("execute")


class CudaEngine(SimpleNamespace):
    """``ICudaEngine``."""


class Registry:
    """``IPluginRegistry``: it takes no plugin twice."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load_library(self, path: str) -> object:
        if path in self.loaded:
            return None
        self.loaded.append(path)
        return object()


class Runtime:
    """``IRuntime``, with a registry of its own."""

    engine_host_code_allowed = False

    def __init__(self, make_engine: Callable[[], Any]) -> None:
        self.registry = Registry()
        self._make_engine = make_engine

    def get_plugin_registry(self) -> Registry:
        return self.registry

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        return self._make_engine()


class FakeTensorRT:
    """The module; its only engine is ``ort``."""

    __name__ = "tensorrt_rtx"
    __version__ = "1.7.1.116"
    ILogger = ILogger
    ExecutionContextAllocationStrategy = SimpleNamespace(ON_PROFILE_CHANGE="on profile change")
    TensorLocation = SimpleNamespace(DEVICE="device")
    TensorIOMode = SimpleNamespace(INPUT="input")

    def __init__(self, ort: OrtEngine) -> None:
        self.ort = ort
        self.contexts: list[Context] = []
        self.runtimes: list[Runtime] = []
        self._registry = Registry()

    def get_plugin_registry(self) -> Registry:
        return self._registry

    def Runtime(self, log: Any) -> Runtime:
        self.runtimes.append(Runtime(lambda: self.engine(log)))
        return self.runtimes[-1]

    def engine(self, log: Any) -> Any:
        tensors: Mapping[str, Any] = self.ort.tensors
        names = list(tensors)

        def profile_shape(name: str, index: int) -> list[list[int]]:
            ranges = self.ort.profiles[index][name]
            return [list(ranges.min), list(ranges.opt), list(ranges.max)]

        def create(strategy: str) -> Context:
            assert strategy == "on profile change", "every context has memory for all profiles"
            self.contexts.append(Context(self.ort, log))
            return self.contexts[-1]

        return CudaEngine(
            num_io_tensors=len(names),
            num_optimization_profiles=len(self.ort.profiles),
            get_tensor_name=lambda index: names[index],
            get_tensor_location=lambda name: "device",
            get_tensor_dtype=lambda name: SimpleNamespace(name=NAMES[tensors[name].dtype]),
            get_tensor_mode=lambda name: "input" if tensors[name].is_input else "output",
            get_tensor_profile_shape=profile_shape,
            create_execution_context=create,
        )


class Opened:
    """A bundle with an engine, opened by ``open_engine``."""

    def __init__(self, bundle: Path, monkeypatch: pytest.MonkeyPatch, **record: object) -> None:
        self.bundle = bundle
        self.device = HostDevice()
        self.trt = FakeTensorRT(OrtEngine(bundle, self.device))
        engine = bundle / "engines" / "rtx.engine"
        engine.parent.mkdir()
        engine.write_bytes(b"an engine")
        sums = {
            "engine_sha256": sha256(engine),
            "bundle_sha256": bundle_sha256(bundle),
        }
        engine.with_suffix(".json").write_text(to_json(some_record(**(sums | record))))
        monkeypatch.setattr(engine_sessions, "import_tensorrt", lambda _: (self.trt, "Fake"))
        monkeypatch.setattr(engine_sessions, "CudaDevice", lambda _: self.device)

    def session(self) -> TrtSession:
        return open_engine(self.bundle, "rtx")


@pytest.fixture
def bundle(library: Library, tmp_path: Path) -> Path:
    return shutil.copytree(library.bundle(BY_ID["stack-mixed"]), tmp_path / "out")


def test_one_context_for_each_profile(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(bundle, monkeypatch)
    session = opened.session()
    assert session.name == "Fake 1.7.1.116, stand-in (8.9), float32"
    assert opened.trt.runtimes[0].engine_host_code_allowed is True
    reference = reference_session(bundle)
    states, expected_states = None, None
    for batch, steps in ((2, 9), (2, 1), (2, 3), (2, 1)):
        output, states = run(session, ids(batch, steps), states)
        expected, expected_states = run(reference, ids(batch, steps), expected_states)
        np.testing.assert_array_equal(output, expected)
        assert_same_states(states, expected_states)
    assert [context.profile for context in opened.trt.contexts] == [1, 0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("shape", r"refused input input_ids \[1, 1\]\nIn shape: a reason$"),
        ("unknown", r"refused the shapes of .*logits"),
        ("address", r"refused the address of input_ids\nIn address: a reason$"),
        ("execute", r"refused the call\nIn execute: a reason$"),
    ],
)
def test_what_tensorrt_refuses(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, call: str, words: str
) -> None:
    opened = Opened(bundle, monkeypatch)
    session = opened.session()
    run(session, ids(1, 1))
    opened.trt.contexts[0].refuses = call
    with pytest.raises(EngineError, match=words):
        run(session, ids(1, 1))
    opened.trt.contexts[0].refuses = ""
    output, _ = run(session, ids(1, 1))
    np.testing.assert_array_equal(output, run(reference_session(bundle), ids(1, 1))[0])


def test_no_memory_for_a_context(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(bundle, monkeypatch)
    session = opened.session()
    full = SimpleNamespace(create_execution_context=lambda _: None)
    monkeypatch.setattr(session._begin.engine, "_engine", full)
    with pytest.raises(EngineError, match="refused an execution context"):
        run(session, ids(1, 1))


def test_plugins_beside_the_engine(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of the version the engine was built with is loaded; another one is refused.

    Two engines in one process load it twice, which one registry refuses.
    """
    beside = PluginLibrary("libxlstm_trt.so", "1.2.3", "0" * 64, embedded=False)
    opened = Opened(bundle, monkeypatch, plugin_library=beside)
    module = "xlstm_export.runtime.trt.engine"
    monkeypatch.setattr(f"{module}.trt_library_path", lambda: Path("libxlstm_trt.so"))
    versions = iter([b"1.2.4", b"1.2.3", b"1.2.3"])

    monkeypatch.setattr(
        "xlstm_export.native.ctypes.CDLL",
        lambda _: SimpleNamespace(xlstm_version=partial(next, versions)),
    )
    with pytest.raises(Exception, match=r"version 1\.2\.4, and the engine was built with 1\.2\.3"):
        opened.session()
    for _ in range(2):
        opened.session()
    refused, *runtimes = opened.trt.runtimes
    assert not refused.registry.loaded
    assert [runtime.registry.loaded for runtime in runtimes] == [["libxlstm_trt.so"]] * 2
    assert not any(runtime.engine_host_code_allowed for runtime in runtimes)


def test_a_closed_engine_holds_nothing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts, then the engine, then the runtime go while the session is still there."""
    opened = Opened(bundle, monkeypatch)
    session = opened.session()
    run(session, ids(1, 1))
    assert isinstance(session._begin.engine, TensorRTEngine)
    gone: list[str] = []
    weakref.finalize(opened.trt.contexts.pop(), gone.append, "context")
    weakref.finalize(session._begin.engine._engine, gone.append, "engine")
    weakref.finalize(opened.trt.runtimes.pop(), gone.append, "runtime")
    gc.collect()
    assert not gone
    session.close()
    assert gone == ["context", "engine", "runtime"]
    with pytest.raises(EngineError, match="session is closed"):
        run(session, ids(1, 1))


def test_checks_of_open_engine(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(bundle, monkeypatch)
    opened.device.compute_capability = "9.0"
    with pytest.raises(EngineError, match="built for compute capability"):
        opened.session()
    opened.device.compute_capability = "8.9"
    (bundle / "engines" / "rtx.engine").write_bytes(b"another")
    with pytest.raises(EngineError, match=r"not the engine that rtx\.json is about"):
        opened.session()
    assert not opened.trt.runtimes
    run(open_engine(bundle, "rtx", check=False), ids(1, 1))
