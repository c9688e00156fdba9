"""The TensorRT plugin library, and the host that calls its objects as TensorRT would."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.cuda.nvcc import include_folder
from tests.plugins.native_builds import ROOT, build_target
from xlstm_export.native import trt_library_path

HEADERS = ROOT / "build" / "tensorrt-headers"


def missing_for_engines() -> str:
    """What a machine lacks to build TensorRT-RTX engines; empty where it has all."""
    modules = ("tensorrt_rtx", "polygraphy")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: pip install 'xlstm-export[rtx]'"
    if trt_library_path() is None and shutil.which("nvcc") is None:
        return "no libxlstm_trt.so, and no nvcc to build it with: install CUDA 12.4 or later"
    return ""


@cache
def plugin_library() -> Path:
    """The installed library, else one built for one GPU. Raises RuntimeError."""
    installed = trt_library_path()
    if installed is not None:
        return installed
    settings = {
        "XLSTM_CUDA": "ON",
        "XLSTM_CUDA_ARCHITECTURES": "89",
        "XLSTM_TRT": "ON",
        "XLSTM_TRT_INCLUDE": str(headers()),
    }
    return (
        build_target("trt-plugins", "xlstm_trt", settings) / "plugins" / "trt" / "libxlstm_trt.so"
    )


@cache
def headers() -> Path:
    """TensorRT's headers, fetched once."""
    script = ROOT / "plugins" / "fetch_tensorrt_headers.sh"
    done = subprocess.run(["sh", script, HEADERS], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return HEADERS


def build_host(folder: Path) -> Path:
    """trt_host.cpp as a program; it links nothing of TensorRT or CUDA."""
    program, source = folder / "trt_host", ROOT / "tests" / "plugins" / "trt_host.cpp"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", headers()]
    flags += ["-isystem", include_folder()]
    command = [shutil.which("c++") or "g++", *flags, source, "-o", program, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def run_host(program: Path, *words: object) -> list[str]:
    """What the host prints, a line an item; it may not end badly."""
    command = [program, plugin_library(), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
    return done.stdout.splitlines()
