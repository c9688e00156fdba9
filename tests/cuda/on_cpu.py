"""The CUDA kernels' own source, compiled against ``shim/`` and run on the CPU; arrays are numpy's.

CMake keeps the build in ``build/cuda-on-cpu``. ``CudaRun`` is one call with guarded memory: blocks
run one after another, the threads of a block change over at barriers (see shim/emulator.h).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.cases import Array, Inputs, OpCase
from tests.plugins.kernels import ALIGNMENT, Call, KernelRun, Pool, Status

ROOT = Path(__file__).resolve().parents[2]
ASCENDING, DESCENDING = 0, 1

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or shutil.which("cmake") is None,
    reason="the emulator is compiled by g++ and cmake: install them",
)


def build(sanitize: str = "", *, small_slices: bool = True) -> Path:
    """Folder of the libraries, built where something changed. One process at a time.

    ``small_slices``: small problems are cut as large ones are on a GPU.
    """
    kind = sanitize.replace(",", "-") or ("" if small_slices else "as-is")
    folder = ROOT / "build" / f"cuda-on-cpu{'-' if kind else ''}{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _cmake("-S", ROOT / "tests/cuda", "-B", folder, f"-DXLSTM_SANITIZE={sanitize}",
               f"-DXLSTM_SMALL_SLICES={'ON' if small_slices else 'OFF'}",
               "-DCMAKE_CXX_COMPILER=g++", f"-DPython3_EXECUTABLE={sys.executable}")  # fmt: skip
        _cmake("--build", folder, "--parallel", os.cpu_count() or 1)
    return folder


def _cmake(*arguments: str | Path | int) -> None:
    done = subprocess.run(["cmake", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"cmake failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


def load(name: str) -> ctypes.CDLL:
    """A library of kernels on the emulator, from XLSTM_CUDA_ON_CPU or built."""
    folder = os.environ.get("XLSTM_CUDA_ON_CPU") or build()
    lib = ctypes.CDLL(str(Path(folder) / f"lib{name}.so"))
    for name in ("order", "most_blocks", "most_cluster", "idles"):
        control = getattr(lib, f"xlstm_emulator_{name}")
        control.argtypes, control.restype = [ctypes.c_uint32], None
    lib.xlstm_emulator_message.restype = ctypes.c_char_p
    lib.xlstm_emulator_launches.restype = ctypes.c_int64
    lib.xlstm_emulator_geometry.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_int64)]
    lib.xlstm_emulator_geometry.restype = None
    return lib


@cache
def library() -> ctypes.CDLL:
    """The operators."""
    lib = load("xlstm_cuda_on_cpu")
    call = ctypes.POINTER(Call)
    lib.xlstm_cuda_workspace_size.argtypes = [call, ctypes.POINTER(ctypes.c_size_t)]
    lib.xlstm_cuda_launch.argtypes = [call, ctypes.c_void_p]
    lib.xlstm_cuda_variant.argtypes = [call, ctypes.POINTER(ctypes.c_char_p)]
    return lib


class CudaRun(KernelRun):
    """``KernelRun`` through the CUDA launcher."""

    order = ASCENDING
    most_blocks = 0
    launches = 0

    def workspace_size(self, threads: int = 1) -> int:
        """Bytes the call asks for; the call must be a good one."""
        size = ctypes.c_size_t()
        status = Status(library().xlstm_cuda_workspace_size(self.call, size))
        assert status == Status.OK
        return size.value

    def variant(self) -> str | Status:
        """Name of the variant that runs, or why there is none."""
        name = ctypes.c_char_p()
        status = Status(library().xlstm_cuda_variant(self.call, name))
        return (name.value or b"").decode() if status == Status.OK else status

    def run(self, pool: Pool | None = None) -> Status:
        """Status of the call, after a look at every guard."""
        library().xlstm_emulator_order(self.order)
        library().xlstm_emulator_most_blocks(self.most_blocks)
        library().xlstm_emulator_launches()
        status = Status(library().xlstm_cuda_launch(self.call, None))
        self.launches = library().xlstm_emulator_launches()
        for name, buffer in {**self.inputs, **self.outputs, "workspace": self.workspace}.items():
            if buffer is not None:
                buffer.assert_intact(name)
        return status


def message() -> str:
    """What the last failed launch did wrong."""
    return str(library().xlstm_emulator_message().decode())


def run_cuda(
    case: OpCase,
    inputs: Inputs,
    tx: str,
    *,
    alias: bool = False,
    order: int = ASCENDING,
    most_blocks: int = 0,
    shift: int = 1,
    guard: int = ALIGNMENT,
) -> dict[str, Array]:
    """Outputs by name, in their own types; memory is guarded as in ``run_kernel``."""
    kernel = CudaRun(case, inputs, tx, alias=alias, shift=shift, guard=guard)
    before = {name: b.bytes.copy() for name, b in kernel.inputs.items()}
    kernel.order, kernel.most_blocks = order, most_blocks
    kernel.add_workspace(1)
    status = kernel.run()
    assert status == Status.OK, f"{case}: {status.name} {message()}"
    written = {given for given, _ in kernel.schema.states} if alias else set()
    for name in before.keys() - written:
        assert (kernel.inputs[name].bytes == before[name]).all(), f"input {name} was written"
    return kernel.results()
