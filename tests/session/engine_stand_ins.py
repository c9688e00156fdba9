"""Stand-ins for the driver and TensorRT, and a bundle whose engine they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.plugins.native_builds import ROOT
from xlstm_export import __version__

TESTS = ROOT / "tests" / "session"
VERSIONS = {"10": 101401, "11": 110100, "unknown": 120000}
RTX = ("rtx", 10701)
VOCABULARY, SHA = 7, "ab" * 32
ENGINE_BYTES, BEGINNING = b"the engine of the stand-in", b"the engine that begins"
FORECASTING = b"the engine that forecasts"
OPEN = """
import os, sys
from tests.session.c_session import CSession, SessionError
try:
    print(CSession(sys.argv[1], runtime=sys.argv[2], engine="tensorrt-sm89").describe())
except SessionError as error:
    print(error.status, error)
"""


def compile_stand_in(target: Path, *flags: str) -> None:
    """A library of ``trt_stand_in.cpp``; ``flags`` say of which."""
    target.parent.mkdir(exist_ok=True)
    source = TESTS / "trt_stand_in.cpp"
    include = f"-I{ROOT / 'plugins' / 'session'}"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", include, *flags]
    subprocess.run([*command, source, "-o", target], check=True)


def run_apart(
    script: str, stand_ins: Path, *words: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    """``script`` in a process where the loader finds the stand-ins."""
    paths = {"LD_LIBRARY_PATH": str(stand_ins), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True,
        check=False, cwd=ROOT, env=os.environ | paths | variables,
    )  # fmt: skip


def tensor(name: str, dtype: str, *shape: int | str) -> dict[str, Any]:
    """An input or output of a manifest."""
    return {"name": name, "dtype": dtype, "shape": ["batch", *shape]}


def _state(letter: str, *shape: int) -> dict[str, Any]:
    ends = {"key": f"0.toy.{letter}", "input": f"past.{letter}", "output": f"present.{letter}"}
    return {**ends, "shape": ["batch", *shape], "dtype": "float32", "init": "zeros"}


def write_bundle(folder: Path) -> Path:
    """A manifest and an engine; the stand-in needs no graph."""
    (folder / "engines").mkdir(parents=True)
    manifest = {
        "format_version": 1, "family": "toy", "dtype": "bfloat16", "opset": 18,
        "inputs": [tensor("input_ids", "int64", "sequence")],
        "outputs": [tensor("logits", "float32", "sequence", VOCABULARY)],
        "states": [_state("s", 4), _state("u", 2, 3)], "runs_on": ["tensorrt"], "sha256": SHA,
    }  # fmt: skip
    record = {
        "format_version": 1, "backend": "tensorrt", "builder_version": "10.14.1.48",
        "compute_capability": ["8.9"], "profiles": [], "bundle_sha256": SHA, "engine_sha256": "",
        "plugins": [{"node": "a", "op_type": "XlstmMLSTM", "implementation": ""}],
        "plugin_library": {
            "name": "libxlstm_trt.so", "version": __version__, "sha256": "", "embedded": True,
        },
    }  # fmt: skip
    (folder / "xlstm_export.json").write_text(json.dumps(manifest))
    (folder / "engines" / "tensorrt-sm89.json").write_text(json.dumps(record))
    (folder / "engines" / "tensorrt-sm89.engine").write_bytes(ENGINE_BYTES)
    return folder


def change_json(path: Path, **changes: Any) -> None:
    """Set keys of the JSON file ``path``."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
