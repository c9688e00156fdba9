"""NVIDIA's own tool with the library for programs that only open one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.trt_library import build_register
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.engine.backend import builder_environment

SIZES = {"batch": 1, "sequence": 8}


@pytest.mark.usefixtures("builder")
def test_polygraphy_finds_the_plugins(bundle: Path, tmp_path: Path) -> None:
    """``--plugins`` opens the library before TensorRT-RTX is there."""
    manifest, engine = read_manifest(bundle), tmp_path / "model.engine"
    tensors = {tensor.name: tensor.shape for tensor in manifest.inputs}
    tensors |= {state.input: state.shape for state in manifest.states}
    shapes = {name: [SIZES.get(d, d) for d in dims] for name, dims in tensors.items()}
    given = [f"{name}:{shape}".replace(" ", "") for name, shape in shapes.items()]
    program = Path(sys.executable).with_name("polygraphy")
    runtime = importlib.util.find_spec("tensorrt_rtx_libs")
    assert runtime is not None
    assert runtime.submodule_search_locations
    with builder_environment("tensorrt_rtx") as variables:
        variables["LD_LIBRARY_PATH"] += f":{runtime.submodule_search_locations[0]}"
        command = [
            *(program, "convert", bundle / "model.onnx"),
            *("--convert-to", "trt", "-o", engine, "--plugins", build_register(tmp_path)),
            *("--compute-capabilities", "8.9"),
        ]
        for kind in ("min", "opt", "max"):
            command += [f"--trt-{kind}-shapes", *given]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert b"XlstmSLSTM" in engine.read_bytes()
