"""The tests of tests/gpu themselves, tried on the emulator: GPU time is not for their own bugs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.on_cpu import ROOT, build, needs_compiler
from tests.gpu.driver import DRIVER_VARIABLE
from tests.gpu.kernels import LIBRARY
from xlstm_export.native import FOLDER_VARIABLE

pytestmark = needs_compiler

TESTS = "tests/gpu/test_kernels_on_gpu.py"
SOME = (
    "test_kernel_obeys_the_rule and B4T7",
    "test_rows_without_a_step and bfloat16",
    "test_the_likeliest_token",
    "states and plain and bfloat16 and (K96 or H64 or D200)",
    "test_a_graph_of_a_sequence and B5T130",
    "test_threads and Conv",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the emulator stands for the driver and for the library."""
    folder = tmp_path_factory.mktemp("gpu")
    (folder / LIBRARY).symlink_to(build() / "libxlstm_cuda_on_cpu.so")
    settings = {DRIVER_VARIABLE: str(folder / LIBRARY), FOLDER_VARIABLE: str(folder)}
    return {**os.environ, **settings}


def run_pytest(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS,
               "--confcutdir=tests/gpu", *arguments]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_gpu_tests_pass_on_the_emulator(environment: dict[str, str]) -> None:
    done = run_pytest(environment, "-k", " or ".join(f"({some})" for some in SOME))
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout


def test_gpu_tests_skip_with_a_reason_where_there_is_no_library(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = run_pytest({**environment, FOLDER_VARIABLE: str(tmp_path)}, "-rs")
    assert done.returncode == 0, done.stdout[-4000:]
    assert "build with -DXLSTM_CUDA=ON" in done.stdout
    assert "passed" not in done.stdout
