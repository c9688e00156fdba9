"""The plugin objects computing: over the kernels' own source on the emulator, without a GPU.

These are the tests of tests/gpu: from fields through an engine and a context to numbers, which are
bit for bit those of the kernels called directly; states in place, graphs, contexts on threads.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.on_cpu import build, needs_compiler
from tests.gpu.driver import DRIVER_VARIABLE
from tests.gpu.kernels import LIBRARY
from tests.plugins.native_builds import ROOT
from tests.plugins.trt_library import build_objects, build_on_emulator
from xlstm_export.native import FOLDER_VARIABLE

pytestmark = needs_compiler

TESTS = "tests/gpu/test_plugins_on_gpu.py"
SOME = (
    "test_plugin_gives_the_kernels_numbers",
    "test_a_graph_of_a_plugin and bfloat16 and (K96 or H64 or D200)",
    "test_two_contexts",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the emulator stands for the driver, and its kernels for the GPU's."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc, whose headers are needed: install the CUDA toolkit")
    folder, kernels = tmp_path_factory.mktemp("trt"), build() / "libxlstm_cuda_on_cpu.so"
    (folder / LIBRARY).symlink_to(kernels)
    build_on_emulator(folder, kernels)
    build_objects(folder)
    settings = {DRIVER_VARIABLE: str(folder / LIBRARY), FOLDER_VARIABLE: str(folder)}
    return {**os.environ, **settings}


def run_pytest(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
               TESTS, "--confcutdir=tests/gpu", *arguments]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("some", SOME)
def test_plugins_compute_what_the_kernels_do(environment: dict[str, str], some: str) -> None:
    done = run_pytest(environment, "-k", some)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_without_the_libraries_they_skip_with_a_reason(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = run_pytest({**environment, FOLDER_VARIABLE: str(tmp_path)}, "-rs")
    assert done.returncode == 0, done.stdout[-4000:]
    assert "python -m tests.plugins.trt_library" in done.stdout
    assert "passed" not in done.stdout
