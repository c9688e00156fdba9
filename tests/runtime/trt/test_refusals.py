"""What stops an engine session: a few lines that say what to do. The real packages, no GPU.

Tests of the real cuda-python and TensorRT-RTX are skipped where they are not installed; those that
need a machine without a driver are skipped where there is one.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.cli.terminal import assert_short_error, run_cli
from tests.model_cases import BY_ID, Library
from tests.plugins.trt_library import missing_for_engines, plugin_library
from tests.runtime.trt.host_device import (
    some_record,
    stand_in,
)
from xlstm_export import __version__
from xlstm_export.bundle.checksum import bundle_sha256, sha256
from xlstm_export.engine.backend import device_capability
from xlstm_export.engine.record import EngineRecord, PluginLibrary, to_json
from xlstm_export.errors import BackendUnavailableError, EngineError
from xlstm_export.native import FOLDER_VARIABLE
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.runtime.trt import session as engine_sessions
from xlstm_export.runtime.trt.device import CudaDevice, import_cuda
from xlstm_export.runtime.trt.engine import (
    TensorRTEngine,
    check_capability,
    check_files,
    find_engine,
    import_tensorrt,
    load_plugins,
)
from xlstm_export.runtime.trt.session import open_engine

NAME = "tensorrt_rtx-sm89"


@pytest.fixture
def bundle(library: Library, tmp_path: Path) -> Path:
    """A bundle of one's own with a file in the place of an engine, and a record that fits it."""
    without = shutil.ignore_patterns("engines", "reports")
    out = shutil.copytree(library.bundle(BY_ID["stack-mixed"]), tmp_path / "out", ignore=without)
    engine = out / "engines" / f"{NAME}.engine"
    engine.parent.mkdir()
    engine.write_bytes(b"not what TensorRT wrote")
    write_record(out)
    return out


def write_record(bundle: Path, **changes: object) -> EngineRecord:
    engine = bundle / "engines" / f"{NAME}.engine"
    sums = {
        "engine_sha256": sha256(engine),
        "bundle_sha256": bundle_sha256(bundle),
    }
    record = some_record(**(sums | changes))
    engine.with_suffix(".json").write_text(to_json(record))
    return record


def need(*modules: str) -> None:
    for module in modules:
        pytest.importorskip(module, reason=f"{module} not installed: pip install '.[rtx]'")


def need_no_driver() -> None:
    if device_capability() is not None:
        pytest.skip("this machine has a driver")


def test_engines_are_found_by_name_and_by_file(bundle: Path) -> None:
    engine = bundle / "engines" / f"{NAME}.engine"
    for word in (NAME, engine.name, str(engine)):
        assert find_engine(bundle, word) == engine
    with pytest.raises(EngineError, match=f"other: no engine of .*; there are {NAME}$"):
        find_engine(bundle, "other")
    engine.unlink()
    with pytest.raises(EngineError, match="make one: xlstm-export build"):
        find_engine(bundle, NAME)


def test_an_engine_of_other_files(bundle: Path) -> None:
    engine = bundle / "engines" / f"{NAME}.engine"
    record = write_record(bundle)
    check_files(bundle, engine, record)
    with open(bundle / "model.onnx.data", "r+b") as file:
        file.write(b"\x01")
    with pytest.raises(EngineError, match=r"was built from another graph or other weights.*build"):
        check_files(bundle, engine, record)
    engine.write_bytes(b"cut")
    with pytest.raises(EngineError, match=f"not the engine that {NAME}.json is about; build again"):
        check_files(bundle, engine, record)


def test_an_engine_for_another_gpu() -> None:
    path = Path("x.engine")
    check_capability(path, some_record(compute_capability=[]), "9.0")
    check_capability(path, some_record(compute_capability=["8.6", "8.9"]), "8.9")
    words = r"built for compute capability 8\.9, and this GPU has 9\.0.*"
    with pytest.raises(EngineError, match=words + r"tensorrt_rtx --compute-capability 9\.0$"):
        check_capability(path, some_record(), "9.0")
    with pytest.raises(EngineError, match=words + "--backend tensorrt$"):
        check_capability(path, some_record(backend="tensorrt"), "9.0")


def test_the_plugin_library_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    beside = PluginLibrary("libxlstm_trt.so", "9.9", "0" * 64, embedded=False)
    runtime: Any = SimpleNamespace()  # nothing may be asked of it
    load_plugins(runtime, some_record(), "title")
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("xlstm_export.runtime.trt.engine.trt_library_path", lambda: None)
    with pytest.raises(BackendUnavailableError, match="needs the plugin library libxlstm_trt"):
        load_plugins(runtime, some_record(plugin_library=beside), "title")
    library = tmp_path / "libxlstm_trt.so"
    library.write_bytes(b"")
    monkeypatch.setattr("xlstm_export.runtime.trt.engine.trt_library_path", lambda: library)
    with pytest.raises(BackendUnavailableError, match="no library of xlstm-export"):
        load_plugins(runtime, some_record(plugin_library=beside), "title")


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'tensorrt-rtx>="):
        import_tensorrt("tensorrt_rtx")
    with pytest.raises(BackendUnavailableError, match=r"pip install 'tensorrt>="):
        import_tensorrt("tensorrt")
    with pytest.raises(EngineError, match="backend 'other'"):
        import_tensorrt("other")
    with pytest.raises(BackendUnavailableError, match="cuda-python, which is not installed"):
        import_cuda()


def test_commands_without_a_driver(bundle: Path) -> None:
    need("tensorrt_rtx", "cuda.bindings.runtime")
    need_no_driver()
    outcome = run_cli("run", bundle, "--ids", "1,2", "--engine", NAME)
    assert_short_error(outcome, "this machine has no NVIDIA driver", "leave --engine out")
    outcome = run_cli("run", bundle, "--ids", "1,2", "--engine", "other")
    assert_short_error(outcome, f"there are {NAME}")


def test_validate_without_a_driver(bundle: Path, library: Library) -> None:
    need("tensorrt_rtx", "cuda.bindings.runtime")
    need_no_driver()
    source = library.source(BY_ID["stack-mixed"]).path
    outcome = run_cli("validate", bundle, "--reference", source, "--engine", NAME)
    assert_short_error(outcome, "this machine has no NVIDIA driver")
    assert not (bundle / "reports").exists()


@pytest.mark.parametrize("named", [("--engine", NAME), ("--backend", "tensorrt_rtx")])
def test_validate_takes_an_engine_as_its_subject(
    bundle: Path, library: Library, monkeypatch: pytest.MonkeyPatch, named: tuple[str, str]
) -> None:
    """Through the stand-in: the report says who computed, and stands beside the bundle's own."""
    session, engine, _ = stand_in(bundle)
    monkeypatch.setattr(engine_sessions, "open_engine", lambda *_, **__: session)
    source = library.source(BY_ID["stack-mixed"]).path
    words = ("validate", bundle, "--reference", source, "--no-upstream", *named)
    outcome = run_cli(*words)
    assert outcome.code == 0, outcome
    assert "verdict: self-consistent" in outcome.out
    assert "CUDA plugins: 1 XlstmMLSTM by libxlstm_trt 9.9" in outcome.out
    assert f"reports/validation-{NAME}.html" in outcome.out.replace("\n", "")
    reports = {path.name for path in (bundle / "reports").iterdir()}
    assert reports == {f"validation-{NAME}.{kind}" for kind in ("html", "json", "md")}
    assert {0, 1} == set(engine.used)

    compute = engine.session.run

    def wrong(*arguments: Any) -> Any:
        outputs, states = compute(*arguments)
        return {name: array * np.float32(1.001) for name, array in outputs.items()}, states

    monkeypatch.setattr(engine.session, "run", wrong)
    assert run_cli(*words).code == 1


def test_run_generates_by_an_engine(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("run", bundle, "--ids", "1,2,3", "-n", "12")
    expected = run_cli(*words).out
    session, engine, _ = stand_in(bundle)
    monkeypatch.setattr(engine_sessions, "open_engine", lambda *_, **__: session)
    outcome = run_cli(*words, "--engine", NAME)
    assert (outcome.code, outcome.out) == (0, expected)
    assert engine.used == [1] + [0] * 11


@pytest.mark.parametrize(
    ("counted", "words"),
    [
        ((35, None), "no NVIDIA driver"),
        ((100, 0), "the driver sees no NVIDIA GPU"),
        ((0, 1), r"GPU 3 was asked for, and the driver sees 1 NVIDIA GPU"),
        ((999, None), "cudaGetDeviceCount failed with cudaError \\(999\\)"),
    ],
)
def test_why_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, counted: tuple[int, int | None], words: str
) -> None:
    cuda = SimpleNamespace(
        cudaGetDeviceCount=lambda: counted,
        cudaDriverGetVersion=lambda: (0, 0),
        cudaRuntimeGetVersion=lambda: (0, 13040),
    )
    monkeypatch.setattr("xlstm_export.runtime.trt.device.import_cuda", lambda: cuda)
    with pytest.raises(BackendUnavailableError, match=words):
        CudaDevice(3)


def test_cuda_python_12_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises where later versions return an error."""

    def count() -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    cuda = SimpleNamespace(cudaGetDeviceCount=count)
    monkeypatch.setattr("xlstm_export.runtime.trt.device.import_cuda", lambda: cuda)
    with pytest.raises(BackendUnavailableError, match="this machine has no NVIDIA driver"):
        CudaDevice()


def test_a_driver_older_than_cuda_python(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        cudaGetDeviceCount=lambda: (35, None),
        cudaDriverGetVersion=lambda: (0, 12040),
        cudaRuntimeGetVersion=lambda: (0, 13040),
    )
    monkeypatch.setattr("xlstm_export.runtime.trt.device.import_cuda", lambda: cuda)
    with pytest.raises(
        BackendUnavailableError, match=r"for CUDA 12\.4 and cuda-python for CUDA 13\.4.*python<13'"
    ):
        CudaDevice()


def bare_device(cuda: Any) -> CudaDevice:
    """A device whose beginning is left out: every call on it meets the missing driver."""
    device = CudaDevice.__new__(CudaDevice)
    device._cuda, device.index, device.name, device.stream = cuda, 0, "none", 0
    device._event = 0
    return device


CALLS: dict[str, Callable[[CudaDevice], object]] = {
    "cudaSetDevice": lambda d: d.activate(),
    "cudaMalloc": lambda d: d.allocate(256),
    "cudaStreamSynchronize": lambda d: d.free(256),
    "cudaMemsetAsync": lambda d: d.zero(256, 16),
    "cudaMemcpyAsync": lambda d: d.upload(256, np.zeros(4)),
    "cudaMemcpyAsync ": lambda d: d.download(np.zeros(4), 256),
    "cudaMemcpyAsync  ": lambda d: d.copy(256, 512, 8),
    "cudaPointerGetAttributes": lambda d: d.check_address(256),
    "cudaEventRecord": lambda d: d.wait_for(1),
    "cudaEventRecord ": lambda d: d.let_wait(1),
    "cudaStreamSynchronize ": lambda d: d.synchronize(),
    "cudaStreamBeginCapture": lambda d: d.capture(lambda: None),
    "cudaGraphLaunch": lambda d: d.launch(0),
    "cudaGraphExecDestroy": lambda d: d.drop(0),
}


@pytest.mark.parametrize("function", CALLS)
def test_every_error_of_cuda_is_told(function: str) -> None:
    """The real functions take our arguments, and their errors are looked at."""
    need("cuda.bindings.runtime")
    need_no_driver()
    if int(importlib.metadata.version("cuda-bindings").partition(".")[0]) < 13:
        pytest.skip("cuda-python 12 raises at every call where there is no driver")
    device = bare_device(importlib.import_module("cuda.bindings.runtime"))
    told = rf"GPU 0: {function.strip()} failed with cudaErrorInsufficientDriver \(35\)"
    with pytest.raises(EngineError, match=told):
        CALLS[function](device)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Unregistered", ["cudaMemcpyAsync", "cudaPointerGetAttributes"]),
        ("Host", ["cudaMemcpyAsync", "cudaPointerGetAttributes", "cudaStreamSynchronize"]),
        ("Managed", ["cudaMemcpyAsync", "cudaPointerGetAttributes", "cudaStreamSynchronize"]),
    ],
)
def test_pinned_memory_is_read_before_upload_returns(kind: str, expected: list[str]) -> None:
    """CUDA reads it while the stream runs, and the caller may change it at once."""
    array, calls = np.zeros(4), []
    kinds = SimpleNamespace(**{f"cudaMemoryType{k}": k for k in ("Unregistered", "Host")})

    def call(name: str, result: Any = None) -> Callable[..., Any]:
        return lambda *arguments: (calls.append((name, arguments)), (0, result))[1]

    cuda = SimpleNamespace(
        cudaMemcpyKind=SimpleNamespace(cudaMemcpyHostToDevice="h2d"),
        cudaMemoryType=kinds,
        cudaMemcpyAsync=call("cudaMemcpyAsync"),
        cudaPointerGetAttributes=call("cudaPointerGetAttributes", SimpleNamespace(type=kind)),
        cudaStreamSynchronize=call("cudaStreamSynchronize"),
    )
    bare_device(cuda).upload(256, array)
    assert [name for name, _ in calls] == expected
    assert dict(calls)["cudaPointerGetAttributes"] == (array.ctypes.data,)


def test_cuda_has_what_a_device_calls() -> None:
    need("cuda.bindings.runtime")
    cuda = importlib.import_module("cuda.bindings.runtime")
    for name in (
        "cudaGetDeviceProperties", "cudaStreamCreate", "cudaStreamDestroy", "cudaStreamWaitEvent",
        "cudaEventCreateWithFlags", "cudaEventDestroy", "cudaEventDisableTiming", "cudaFree",
        "cudaGetLastError", "cudaRuntimeGetVersion", "cudaDriverGetVersion",
        "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphDestroy",
    ):  # fmt: skip
        assert hasattr(cuda, name), name
    for kind in ("Managed", "Device", "Unregistered"):
        assert hasattr(cuda.cudaMemoryType, f"cudaMemoryType{kind}")
    assert hasattr(cuda.cudaPointerAttributes(), "type")
    assert hasattr(cuda.cudaDeviceProp(), "major")


def test_real_runtime_refuses_a_file_that_is_no_engine(bundle: Path) -> None:
    need("tensorrt_rtx")
    trt, title = import_tensorrt("tensorrt_rtx")
    record = dataclasses.replace(write_record(bundle), builder_version="1.2.3")
    with pytest.raises(EngineError) as caught:
        TensorRTEngine(bundle / "engines" / f"{NAME}.engine", record, trt, title)
    first, *told = str(caught.value).splitlines()
    assert f"TensorRT-RTX {trt.__version__} cannot load it; 1.2.3 built it: build again" in first
    assert told, "what the runtime logged is lost"


def test_a_real_runtime_loads_the_plugins_for_each_engine(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry of the process refuses them the second time; every runtime has its own."""
    if reason := missing_for_engines():
        pytest.skip(reason)
    library = plugin_library()
    monkeypatch.setenv(FOLDER_VARIABLE, str(library.parent))
    beside = PluginLibrary(library.name, __version__, "0" * 64, embedded=False)
    record = write_record(bundle, plugin_library=beside)
    trt, title = import_tensorrt("tensorrt_rtx")
    for _ in range(2):
        with pytest.raises(EngineError, match="cannot load it"):  # the file is no engine
            TensorRTEngine(bundle / "engines" / f"{NAME}.engine", record, trt, title)
    runtime = trt.Runtime(trt.Logger())
    load_plugins(runtime, record, title)
    names = {creator.name for creator in runtime.get_plugin_registry().all_creators}
    assert set(CATALOG) <= names
    with pytest.raises(BackendUnavailableError, match=f"{title} refused it"):
        load_plugins(runtime, record, title)


def test_tensorrt_has_what_an_engine_calls() -> None:
    need("tensorrt_rtx")
    trt = importlib.import_module("tensorrt_rtx")
    expected = {
        trt.Runtime: (
            "deserialize_cuda_engine", "engine_host_code_allowed", "get_plugin_registry",
        ),
        trt.ExecutionContextAllocationStrategy: ("ON_PROFILE_CHANGE",),
        trt.ICudaEngine: (
            "num_optimization_profiles", "num_io_tensors", "get_tensor_name", "get_tensor_mode",
            "get_tensor_dtype", "get_tensor_location", "get_tensor_profile_shape",
            "create_execution_context",
        ),
        trt.IExecutionContext: (
            "set_optimization_profile_async", "set_input_shape", "get_tensor_shape",
            "set_tensor_address", "execute_async_v3", "is_stream_capturable",
        ),
        trt: ("TensorLocation", "TensorIOMode"),
    }  # fmt: skip
    for owner, names in expected.items():
        assert not [name for name in names if not hasattr(owner, name)], owner
    taken = str(trt.ICudaEngine.create_execution_context.__doc__)
    assert "strategy: " in taken


def test_records_that_do_not_fit(bundle: Path) -> None:
    (bundle / "engines" / f"{NAME}.json").unlink()
    with pytest.raises(EngineError, match=f"{NAME}.json: no such file"):
        open_engine(bundle, NAME)
