"""nvcc on the kernels: what it knows, and what the library does not hold."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from tests.cuda.on_cpu import ROOT

SOURCES = ROOT / "plugins" / "kernels" / "cuda"
KERNELS = sorted(str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.cu"))
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

needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc") is None, reason="no nvcc: install the CUDA toolkit, 12.4 or later"
)


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


def compile_to_ptx(name: str, targets: Sequence[int], folder: Path, *options: str) -> Path:
    """The object of ``name`` with PTX that nothing has optimised. Raises where nvcc warns."""
    schema, out = folder / "xlstm" / "op_schema.h", folder / f"{Path(name).name}.o"
    generate = ROOT / "plugins" / "generate_schema.py"
    subprocess.run([sys.executable, generate, ROOT, schema], check=True)
    codes = [f"-gencode=arch=compute_{t},code=compute_{t}" for t in targets]
    includes = [f"-I{path}" for path in (folder, SOURCES.parent / "include", SOURCES)]
    command = ["nvcc", "-std=c++17", "-Xcicc", "-O0", *codes, *STRICT, *includes, *options,
               "-c", SOURCES / name, "-o", out]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return out
