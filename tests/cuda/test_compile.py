"""The kernels compile for Jetsons; the build says which targets it leaves out, or lacks nvcc."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.nvcc import (
    JETSON_TARGETS,
    KERNELS,
    compile_to_ptx,
    include_folder,
    known_targets,
    needs_nvcc,
)
from tests.cuda.on_cpu import ROOT

pytestmark = needs_nvcc


@pytest.mark.parametrize("name", KERNELS)
def test_aarch64_compiles(name: str, tmp_path: Path) -> None:
    compiler, objdump = "aarch64-linux-gnu-g++", "aarch64-linux-gnu-objdump"
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}: install the Debian package g++-aarch64-linux-gnu")
    targets = known_targets(JETSON_TARGETS)
    headers = [f"-isystem={folder}" for folder in (include_folder(), include_folder() / "cccl")]
    made = compile_to_ptx(name, targets, tmp_path, f"-ccbin={compiler}", *headers)
    done = subprocess.run([objdump, "-f", made], capture_output=True, text=True, check=True)
    assert "architecture: aarch64" in done.stdout


def configure(folder: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    command = ["cmake", "-S", ROOT, "-B", folder, "-DXLSTM_CUDA=ON",
               f"-DPython3_EXECUTABLE={sys.executable}", *settings]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake: install it")
def test_targets_that_nvcc_lacks_are_left_out_and_named(tmp_path: Path) -> None:
    done = configure(tmp_path, "-DXLSTM_CUDA_ARCHITECTURES=80;999")
    assert done.returncode == 0, done.stderr
    assert "does not know sm_999: left out" in done.stderr
    assert "compute capabilities: 80-real;80-virtual" in done.stdout
    done = configure(tmp_path, "-DXLSTM_CUDA_ARCHITECTURES=998;999")
    assert done.returncode != 0
    assert "knows none of XLSTM_CUDA_ARCHITECTURES (998;999)" in done.stderr


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake: install it")
def test_without_nvcc_the_build_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDACXX", str(tmp_path / "no-nvcc"))
    done = configure(tmp_path / "build")
    assert done.returncode != 0
    assert "XLSTM_CUDA needs nvcc" in done.stderr
    assert "-DXLSTM_CUDA=OFF" in done.stderr
