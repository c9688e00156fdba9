"""nvcc takes the kernels for every target with warnings as errors; its report stays in bounds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.nvcc import (
    JETSON_TARGETS,
    TARGETS,
    compile_kernel,
    include_folder,
    known_targets,
    needs_nvcc,
    usages,
)
from tests.cuda.on_cpu import ROOT
from xlstm_export.ops.schema import TX_DTYPES

pytestmark = needs_nvcc

WIDE = ("float64",)

# Most registers of a thread over all targets, in the single precisions and in double; None where
# there is no such kernel. A block of mlstm_columns or slstm_sequence has up to 512 threads: 128
# is what they may have.
REGISTERS: dict[str, dict[str, tuple[int | None, int | None]]] = {
    "mlstm/plain": {
        "mlstm_gates": (168, 216),
        "mlstm_columns<8>": (112, 128),
        "mlstm_columns<16>": (None, 128),
        "mlstm_columns<32>": (128, None),
    },
    "mlstm/chunk": {
        "chunk_gates": (64, None),
        "chunk_states": (255, None),  # two blocks on a processor
        "chunk_outputs": (255, None),
    },
    "mlstm/step": {
        "mlstm_step<8, true, true>": (128, None),  # four blocks on a processor
        "mlstm_step<4, true, true>": (128, None),  # two, of twice as many threads
        "mlstm_step<8, true, false>": (255, None),
        "mlstm_step<8, false, false>": (255, None),
        "mlstm_step<4, true, false>": (255, None),
        "mlstm_step<4, false, false>": (255, None),
        "mlstm_copy_n_and_m": (32, None),
    },
    "slstm/plain": {
        "slstm_sequence<1>": (96, 128),
        "slstm_sequence<4>": (96, 128),
        "slstm_large": (128, 128),
    },
    "slstm/registers": {
        f"slstm_registers<{units}, {rows}, {rounds}>": (128 if rows == 4 else 255, None)
        for units in (32, 64, 128)
        for rows in (2, 4)
        for rounds in ("false", "true")
    },
    "slstm/clusters": {
        f"slstm_clusters<{shape}, {tiles}, {rounds}>": (168 if shape == 3 else 255, None)
        for shape in range(4)  # the last has 384 threads, the others 256
        for tiles, rounds in ((1, "false"), (2, "false"), (1, "true"))
    },
    "conv1d/plain": {
        "conv1d_outputs<0>": (80, 80),
        "conv1d_outputs<4>": (64, 88),
        "conv1d_state": (96, 80),
    },
    "conv1d/vector": {
        "conv1d_vector<true>": (64, None),  # eight blocks on a processor
        "conv1d_vector<false>": (80, None),
    },
    "launch": {},
}
HALVES = ("bfloat16", "float16")
ELEMENTS = {"mlstm/chunk": HALVES, "slstm/registers": HALVES, "slstm/clusters": HALVES}
"""Types of a file's kernels, where they are not made for all."""
SPILLED = {
    ("chunk_outputs", "float16"): 200,  # units of C beside what bfloat16 has too
    # before the steps, while R is on its way to registers
    **{(f"slstm_registers<128, 4, {r}>", tx): 160 for r in ("false", "true") for tx in HALVES},
    **{("slstm_clusters<3, 2, false>", tx): 72 for tx in HALVES},  # three loads are in a step
}
"""Most bytes stored and loaded, where it is not 0."""


@pytest.mark.parametrize("name", list(REGISTERS))
def test_every_target_compiles_without_spills(name: str, tmp_path: Path) -> None:
    targets = known_targets(TARGETS)
    assert {80, 86, 89, 90} <= set(targets)
    _, report = compile_kernel(name, targets, tmp_path, "-Xptxas=-v")
    found = usages(report)
    wanted = {
        (kernel, tx, target)
        for kernel, limits in REGISTERS[name].items()
        for tx in ELEMENTS.get(name, TX_DTYPES)
        for target in targets
        if limits[tx in WIDE] is not None
    }
    assert {(u.kernel, u.tx, u.target) for u in found} == wanted
    limits = REGISTERS[name]
    over = [
        u
        for u in found
        if u.spilled > SPILLED.get((u.kernel, u.tx), 0)
        or u.registers > (limits[u.kernel][u.tx in WIDE] or 0)
    ]
    assert not over, "\n".join(map(str, over))


@pytest.mark.parametrize("name", list(REGISTERS))
def test_aarch64_compiles(name: str, tmp_path: Path) -> None:
    compiler, objdump = "aarch64-linux-gnu-g++", "aarch64-linux-gnu-objdump"
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}: install the Debian package g++-aarch64-linux-gnu")
    targets = known_targets(JETSON_TARGETS)
    headers = [f"-isystem={folder}" for folder in (include_folder(), include_folder() / "cccl")]
    made, _ = compile_kernel(
        name, targets, tmp_path, f"-ccbin={compiler}", *headers, code="compute"
    )
    done = subprocess.run([objdump, "-f", made], capture_output=True, text=True, check=True)
    assert "architecture: aarch64" in done.stdout


def configure(folder: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    command = ["cmake", "-S", ROOT, "-B", folder, "-DXLSTM_CUDA=ON",
               f"-DPython3_EXECUTABLE={sys.executable}", *settings]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake: install it")
def test_targets_that_nvcc_lacks_are_left_out_and_named(tmp_path: Path) -> None:
    done = configure(tmp_path / "some", "-DXLSTM_CUDA_ARCHITECTURES=80;999")
    assert done.returncode == 0, done.stderr
    assert "does not know sm_999: left out" in done.stderr
    assert "compute capabilities: 80-real;80-virtual" in done.stdout
    done = configure(tmp_path / "none", "-DXLSTM_CUDA_ARCHITECTURES=998;999")
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
