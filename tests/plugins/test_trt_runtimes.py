"""The plugin library in the hands of different runtimes: its log, and how it is registered.

Stand-ins (trt_runtime.cpp) for TensorRT 10 and for what cannot be installed; TensorRT-RTX and the
lean runtime of TensorRT 11 are the real ones.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.trt_library import (
    build_host,
    build_register,
    build_runtime,
    plugin_library,
    run_host,
)
from xlstm_export.ops.catalog import CATALOG

pytestmark = pytest.mark.skipif(
    shutil.which("nvcc") is None, reason="no nvcc: install the CUDA toolkit, 12.4 or later"
)

VERSIONS = {
    "TensorRT 10.10": ("libnvinfer.so.10", 101000),
    "TensorRT 11.1": ("libnvinfer.so.11", 110100),
    "TensorRT-RTX 1.7.1": ("libtensorrt_rtx.so.1", 10701),
}
UNKNOWN = {"TensorRT 12": ("libnvinfer.so.11", 120000), "RTX 1.6": ("libtensorrt_rtx.so.1", 10600)}
REFUSED = "ai.xlstm XlstmMLSTM (node): chunk_size is 0, expected 1 to 2147483647"
OPEN = "import ctypes, sys; [ctypes.CDLL(path) for path in sys.argv[1:]]"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_host(tmp_path_factory.mktemp("trt-host"))


@pytest.fixture(scope="module")
def register(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_register(tmp_path_factory.mktemp("trt-register"))


def open_libraries(*paths: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Open each as a program does that knows nothing of plugins."""
    command = [sys.executable, "-c", OPEN, *map(str, paths)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | variables, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("name", VERSIONS)
def test_a_refusal_reaches_the_log_of_every_runtime(host: Path, name: str) -> None:
    soname, version = VERSIONS[name]
    build_runtime(host.parent / soname, version)
    lines = run_host(host, "create", "XlstmMLSTM", "build", "chunk_size:5:00000000", runtime=soname)
    assert lines[0].startswith(f"log: {REFUSED}")


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_runtime_is_not_called(host: Path, name: str) -> None:
    """Its log may lie elsewhere: the refusal goes to stderr."""
    soname, version = UNKNOWN[name]
    build_runtime(host.parent / soname, version)
    words = ("create", "XlstmMLSTM", "build", "chunk_size:5:00000000")
    command = [host, host.parent / soname, plugin_library(), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "plugin 0\n"
    assert done.stderr.startswith(REFUSED)


@pytest.mark.parametrize("name", VERSIONS)
@pytest.mark.parametrize("loaded", [True, False])
def test_opening_the_register_library_loads_the_plugins(
    register: Path, tmp_path: Path, name: str, loaded: bool
) -> None:
    """By the runtime that is there, or else by one that the loader finds."""
    soname, version = VERSIONS[name]
    build_runtime(tmp_path / soname, version)
    if loaded:
        done = open_libraries(tmp_path / soname, register)
    else:
        done = open_libraries(register, LD_LIBRARY_PATH=str(tmp_path))
    assert done.stdout == f"load: {register.parent}/libxlstm_trt.so\n"
    assert done.stderr == ""


def test_register_library_without_a_runtime(register: Path) -> None:
    done = open_libraries(register)
    assert done.stdout == ""
    assert "no TensorRT to register plugins with: set LD_LIBRARY_PATH" in done.stderr


@pytest.mark.parametrize("name", UNKNOWN)
def test_register_library_beside_an_unknown_runtime(
    register: Path, tmp_path: Path, name: str
) -> None:
    soname, version = UNKNOWN[name]
    build_runtime(tmp_path / soname, version)
    done = open_libraries(tmp_path / soname, register)
    assert done.stdout == ""
    assert f"{soname}: its version is not known" in done.stderr


def test_register_library_says_that_plugins_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "refused"
    folder.mkdir()
    register = build_register(folder)
    build_runtime(tmp_path / "libnvinfer.so.10", 101401)
    done = open_libraries(tmp_path / "libnvinfer.so.10", register)
    assert f"libnvinfer.so.10: it refused to load the plugins ({folder}" in done.stderr


RTX_LOG = """
import sys
import numpy as np
import tensorrt_rtx as trt

class Lines(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
    def log(self, severity, message):
        if severity == trt.Logger.ERROR:
            print("log:", message, flush=True)

lines = Lines()
builder = trt.Builder(lines)
registry = trt.get_plugin_registry()
assert registry.load_library(sys.argv[1])
field = trt.PluginField("chunk_size", np.zeros(1, np.int32), trt.PluginFieldType.INT32)
creator = registry.get_creator("XlstmMLSTM", "1", "ai.xlstm")
fields = trt.PluginFieldCollection([field])
assert creator.create_plugin("node", fields, trt.TensorRTPhase.BUILD) is None
"""


def test_a_refusal_reaches_the_log_of_tensorrt_rtx() -> None:
    """The program's own logger, in a class of the real runtime."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("no tensorrt_rtx: pip install '.[rtx]'")
    command = [sys.executable, "-c", RTX_LOG, str(plugin_library())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"log: {REFUSED}" in done.stdout


LEAN = """
import ctypes, json, sys
import numpy as np
import tensorrt_lean_bindings as trt

KINDS = trt.PluginFieldType
TYPES = {"int": (np.int32, KINDS.INT32), "float": (np.float32, KINDS.FLOAT32)}
library, operators = sys.argv[1], json.loads(sys.argv[2])
registry = trt.get_plugin_registry()
assert registry.load_library(library), "the library was refused"
for name, attributes in operators.items():
    creator = registry.get_creator(name, "1", "ai.xlstm")
    fields = [trt.PluginField(n, np.array([v], TYPES[k][0]), TYPES[k][1]) for n, k, v in attributes]
    collection = trt.PluginFieldCollection(fields)
    phase, none = trt.TensorRTPhase.RUNTIME, trt.PluginFieldCollection([])
    assert creator.create_plugin("node", collection, phase) is not None, name
    assert creator.create_plugin("node", none, phase) is None, name
print(trt.__version__)
"""


def test_the_lean_runtime_creates_every_plugin() -> None:
    """TensorRT 11's runtime: another major version than the headers'."""
    if importlib.util.find_spec("tensorrt_lean_bindings") is None:
        pytest.skip("no lean runtime: pip install tensorrt-lean-cu13")
    operators = {
        op.name: [(a.name, a.kind, a.default) for a in op.attributes] for op in CATALOG.values()
    }
    command = [sys.executable, "-c", LEAN, str(plugin_library()), json.dumps(operators)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split(".")[0]) >= 10
