"""nvcc on the kernels: what it knows, and what its assembler reports of registers and spills."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.cuda.on_cpu import ROOT

KERNELS = ROOT / "plugins" / "kernels"
TARGETS, JETSON_TARGETS = (75, 80, 86, 89, 90, 100, 120), (87, 110)
"""Compute capabilities the source must compile for."""

LINKED = {
    "XLSTM_CUDA": "ON",
    "XLSTM_CUDA_ARCHITECTURES": "75",
    "CMAKE_CUDA_FLAGS": "-Xcicc -O0 -Xptxas -O0",
}
"""CMake's settings where only the library around the kernels counts: the target with the fewest of
them, compiled quickly. ``build/cuda`` is built so, once for all tests."""

STRICT = ("-Xcompiler=-Wall,-Wextra,-Werror", "--Werror=all-warnings")
_ELEMENTS = {
    "float": "float32", "__half": "float16", "__nv_bfloat16": "bfloat16", "double": "float64",
}  # fmt: skip

needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc") is None, reason="no nvcc: install the CUDA toolkit, 12.4 or later"
)


@dataclass(frozen=True)
class Usage:
    """One kernel in one compute capability. ``kernel`` is its name and arguments but the type."""

    kernel: str
    tx: str
    target: int
    registers: int
    spilled: int
    """Bytes stored and loaded."""


def known_targets(wanted: Sequence[int]) -> list[int]:
    """Those that this nvcc has."""
    done = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True)
    names = {int(word) for word in re.findall(r"compute_(\d+)\b", done.stdout)}
    return [target for target in wanted if target in names]


@cache
def include_folder() -> Path:
    """CUDA's headers; they are the same for every host processor."""
    done = subprocess.run(
        ["nvcc", "--dryrun", "-x", "cu", "/dev/null"], capture_output=True, text=True, check=True
    )
    found = re.search(r'INCLUDES="-I([^"]+?)"', done.stderr)
    assert found, done.stderr
    return Path(found[1].strip())


def compile_kernel(
    name: str, targets: Sequence[int], folder: Path, *options: str, code: str = "sm"
) -> tuple[Path, str]:
    """The object of ``name``.cu and what nvcc said. Raises where it fails or warns.

    ``code`` "compute" leaves out the assembler, most of the time.
    """
    schema, out = folder / "xlstm" / "op_schema.h", folder / f"{Path(name).name}.o"
    generate = ROOT / "plugins" / "generate_schema.py"
    subprocess.run([sys.executable, generate, ROOT, schema], check=True)
    codes = [f"-gencode=arch=compute_{t},code={code}_{t}" for t in targets]
    includes = [f"-I{path}" for path in (folder, KERNELS / "include", KERNELS / "cuda")]
    command = ["nvcc", "-std=c++17", "-O3", *codes, *STRICT, *includes, *options,
               "-c", KERNELS / "cuda" / f"{name}.cu", "-o", out]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return out, done.stderr


def usages(report: str) -> list[Usage]:
    """The reports of -Xptxas=-v."""
    plain = subprocess.run(["c++filt"], input=report, capture_output=True, text=True, check=True)
    return [_usage(part) for part in plain.stdout.split("Compiling entry function '")[1:]]


def _usage(report: str) -> Usage:
    """One kernel's report, its name demangled."""
    name = re.match(r"void [^<]*::(\w+)<(\w+)(?:, ([\w, ]+))?>\(", report)
    target = re.search(r"' for 'sm_(\d+)'", report)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    registers = re.search(r"Used (\d+) registers", report)
    assert name is not None, report
    assert target is not None, report
    assert spills is not None, report
    assert registers is not None, report
    return Usage(
        name[1] + (f"<{name[3]}>" if name[3] else ""),
        _ELEMENTS[name[2]],
        int(target[1]),
        int(registers[1]),
        int(spills[1]) + int(spills[2]),
    )
