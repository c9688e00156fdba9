"""What this machine has, what each part is for, and how to get the rest."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from xlstm_export import __version__
from xlstm_export.errors import BackendUnavailableError
from xlstm_export.native import (
    cuda_toolkit,
    load_ort_library,
    ort_cuda_library_path,
    trt_library_path,
)

_REQUIRED = {
    "onnxruntime": ">=1.20", "onnxruntime-gpu": ">=1.20", "tokenizers": ">=0.22",
    "huggingface_hub": ">=0.24", "torch": ">=2.4", "xlstm": ">=2.0.5", "mlstm_kernels": ">=2.0.3",
    "transformers": ">=5.0", "tirex-ts": ">=1.4", "tirex-2": ">=0.4",
    "tensorrt": ">=10.10", "tensorrt-rtx": ">=1.7", "polygraphy": ">=0.50.3",
    "cuda-python": ">=12.8", "onnxscript": ">=0.7", "pandas": ">=2", "matplotlib": ">=3.7",
    "fastapi": ">=0.115", "uvicorn": ">=0.30", "prometheus_client": ">=0.20",
    "jinja2": ">=3.1",
}  # fmt: skip
"""Optional packages with the versions that the extras of pyproject.toml ask for."""

_INSTALL = "pip install --force-reinstall --no-deps dist/*.whl"
"""Replaces what is installed, also by a wheel of the same version."""

_LEAST_DRIVER = {"12": 525, "13": 580}
"""Major version of the NVIDIA driver that CUDA of a major version needs, for what it carries."""
_DRIVER_FILE = Path("/proc/driver/nvidia/version")

_BODIES_INSTEAD = "not built: function bodies run instead, slower"

_REPORTED = (
    "numpy", "onnx", "onnx-ir", "onnxruntime", "torch", "xlstm", "mlstm_kernels", "transformers",
    "tirex-ts", "tirex-2",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One line of ``doctor``: what it is about, whether it is well, and what was found.

    ``cure`` says what to do, and is empty when nothing is amiss.
    """

    what: str
    ok: bool
    found: str
    cure: str = ""


def install(*packages: str) -> str:
    """The command that brings optional ``packages``: cures name what an index really has."""
    return shlex.join(["pip", "install", *(f"{name}{_REQUIRED[name]}" for name in packages)])


def versions() -> dict[str, str]:
    """Versions of this toolkit and of the packages that take part, absent ones left out."""
    found = {"xlstm-export": __version__, "python": platform.python_version()}
    for package in _REPORTED:
        version = _version(package)
        if version:
            found[package] = version
    return found


def machine() -> dict[str, str]:
    """What computes here: system, processor, its instruction set and how many there are."""
    return {
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "instruction set": _isa(),
        "logical processors": str(os.cpu_count()),
    }


def diagnose() -> list[Finding]:
    """What this machine can do, and how to get the rest: what ``doctor`` prints.

    Installed means installed: nothing heavy is imported.
    """
    return [
        Finding("xlstm-export", True, f"{__version__}, Python {sys.version.split()[0]}"),
        Finding("processor", True, f"{platform.machine()}, {os.cpu_count()} logical, {_isa()}"),
        _onnxruntime(),
        _native_kernels(),
        _gpu_kernels(),
        _package("validate: torch reference", "torch"),
        _package("validate block_stack, xlstm_large, vil", "xlstm"),
        _package("validate xlstm_large, hf kernels", "mlstm_kernels"),
        _package("validate hf", "transformers"),
        _package("validate tirex", "tirex-ts"),
        _package("validate tirex2", "tirex-2"),
        _package("run: text in and out", "tokenizers"),
        _package("run: tables and plots of forecasts", "pandas", "matplotlib"),
        _package("serve", "fastapi", "uvicorn", "prometheus_client"),
        _package("download org/name sources", "huggingface_hub"),
        _plugins(),
        _package("build: TensorRT-RTX engines", "tensorrt-rtx", "polygraphy"),
        _package("build: TensorRT engines", "tensorrt", "polygraphy"),
        _engines(),
        _driver(),
    ]


def _onnxruntime() -> Finding:
    what = "run: ONNX Runtime"
    cpu, gpu = _version("onnxruntime"), _version("onnxruntime-gpu")
    if cpu and gpu:
        cure = (
            "pip uninstall onnxruntime onnxruntime-gpu, then install one: they overwrite each other"
        )
        return Finding(what, False, f"onnxruntime {cpu} and onnxruntime-gpu {gpu}", cure)
    return _package(what, "onnxruntime-gpu" if gpu else "onnxruntime")


def _native_kernels() -> Finding:
    """Loads the library (some 100 kB), as a session would."""

    def look() -> str | None:
        library = load_ort_library()
        return None if library is None else f"{library}, {library.path}"

    return _library("run: native CPU kernels", look, _BODIES_INSTEAD, _how_to_build)


def _library(
    what: str, look: Callable[[], object | None], missing: str, how_to_build: Callable[[], str]
) -> Finding:
    """What ``look`` finds of a native library, None where it is not built."""
    try:
        library = look()
    except BackendUnavailableError as error:
        found, _, cure = str(error).rpartition("; ")
        return Finding(what, False, found, cure)
    if library is None:
        return Finding(what, False, missing, how_to_build())
    return Finding(what, True, str(library))


def _gpu_kernels() -> Finding:
    """What ``--backend ort-cuda`` needs; neither package nor driver is loaded."""
    what = "run on a GPU: ort-cuda"
    package = _package(what, "onnxruntime-gpu")
    if not package.ok:
        return replace(package, cure=f"{package.cure}, in onnxruntime's place")
    return _library(what, ort_cuda_library_path, _BODIES_INSTEAD, _with_nvcc)


def _driver() -> Finding:
    """Whether the NVIDIA driver here is new enough for the CUDA that the kernels carry."""
    what = "run on a GPU: NVIDIA driver"
    kernels = _library(what, cuda_toolkit, "no kernels for GPUs", _with_nvcc)
    if not kernels.ok:
        return kernels
    least = _LEAST_DRIVER.get(kernels.found.partition(".")[0], 0)
    wanted = f"CUDA {kernels.found} in the kernels needs {least or 'a newer one'} or later"
    driver = _driver_version()
    if driver is None:
        return Finding(what, False, f"none; {wanted}", "install it on a machine with a GPU")
    if driver < least:
        cure = "update the driver, or take a wheel whose version ends in +cu12"
        return Finding(what, False, f"{driver}; {wanted}", cure)
    return Finding(what, True, f"{driver}; {wanted}")


def _driver_version() -> int | None:
    """Major version of the NVIDIA driver that runs; None where there is none."""
    try:
        text = _DRIVER_FILE.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"Kernel Module .*?\b(\d+)\.\d", text)
    return int(found[1]) if found else None


def _plugins() -> Finding:
    return _library("build: TensorRT plugins", trt_library_path, "not built", _with_nvcc)


def _with_nvcc() -> str:
    nvcc = "" if shutil.which("nvcc") else "install CUDA 12.4 or later (nvcc), then "
    return f"{nvcc}make wheel in a checkout, then {_INSTALL}"


def _engines() -> Finding:
    what = "run engines"
    package = _package(what, "cuda-python")
    if not package.ok:
        return package
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        found = f"{package.found}, but no NVIDIA driver"
        return Finding(what, False, found, "engines run on a machine with an NVIDIA GPU")
    return package


def _how_to_build() -> str:
    """What ``make wheel`` lacks on this machine, then the commands."""
    before = []
    if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++")):
        before.append("install a C++17 compiler (g++ 12 or later, or clang++)")
    if not shutil.which("apt-get"):
        before.append("set XLSTM_ORT_INCLUDE to the folder of onnxruntime_c_api.h")
    steps = [*before, "make wheel in a checkout", _INSTALL]
    return ", then ".join(steps)


def _package(what: str, *packages: str) -> Finding:
    """Whether ``packages`` are here and new enough, and how to get those that are not."""
    wrong = {name: state for name in packages if (state := _wrong_version(name))}
    if wrong:
        found = " and ".join(f"{name} {state}" for name, state in wrong.items())
        return Finding(what, False, found, install(*wrong))
    return Finding(what, True, f"{packages[0]} {_version(packages[0])}")


def _wrong_version(package: str) -> str:
    """What is wrong with it; nothing where it is as the extras ask for."""
    version, least = _version(package), _REQUIRED[package].removeprefix(">=")
    if not version:
        return "missing"
    return f"{version}, where {least} is the least" if _numbers(version) < _numbers(least) else ""


def _numbers(version: str) -> list[int]:
    """Of a release: 5.0.0rc1 counts as 5.0.0, and as 5."""
    release = re.match(r"\d+(\.\d+)*", version)
    found = [int(part) for part in release[0].split(".")] if release else []
    while found and found[-1] == 0:
        found.pop()
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    """Its name where the system tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            names = (line.partition(":")[2].strip() for line in file if "model name" in line)
            return next(names, platform.machine())
    except OSError:
        return platform.machine()


def _isa() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            flags = next(
                (line for line in file if line.startswith(("flags", "Features"))), ""
            ).split()
    except OSError:
        return "instruction sets unknown"
    wanted = ("avx2", "fma", "avx512f", "amx_bf16", "asimd")
    return " ".join(f for f in wanted if f in flags) or "no vector extension beyond the baseline"
