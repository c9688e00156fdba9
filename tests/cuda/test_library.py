"""libxlstm_cuda_c as nvcc and the linker make it: what it exports, needs, and answers."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.cases import OP_CASES, make_inputs
from tests.cuda.nvcc import LINKED
from tests.cuda.on_cpu import CudaRun, library, needs_compiler
from tests.gpu.driver import why_no_gpu
from tests.gpu.kernels import library_path
from tests.plugins.kernels import Call, Status
from tests.plugins.native_builds import build_target
from xlstm_export import __version__
from xlstm_export.ops.catalog import CATALOG

pytestmark = needs_compiler


@cache
def built() -> Path:
    """The one that ``make wheel`` has built; else one for a single target, by nvcc."""
    installed = library_path()
    if installed.is_file():
        return installed
    if shutil.which("nvcc") is None:
        pytest.skip(f"no {installed.name}, and no nvcc to build it with")
    return build_target("cuda", "xlstm_cuda_c", LINKED) / "plugins" / "capi" / "libxlstm_cuda_c.so"


def test_it_exports_its_functions_alone_and_needs_no_cuda_library() -> None:
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", built()], capture_output=True, text=True, check=True
    )
    symbols = {line.split()[-1] for line in listed.stdout.splitlines()}
    names = (
        "error_name", "launch", "likeliest", "prepare", "toolkit", "variant", "workspace_size",
    )  # fmt: skip
    assert symbols == {"xlstm_version", *(f"xlstm_cuda_{name}" for name in names)}
    library = ctypes.CDLL(str(built()))
    library.xlstm_version.restype = ctypes.c_char_p
    assert library.xlstm_version() == __version__.encode()
    read = subprocess.run(["readelf", "-d", built()], capture_output=True, text=True, check=True)
    needed = re.findall(r"NEEDED.*\[(.*)\]", read.stdout)
    assert needed
    assert not [name for name in needed if "cuda" in name]


@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_its_workspace_is_the_emulators(case) -> None:
    real = ctypes.CDLL(str(built()))
    kernel = CudaRun(case, make_inputs(case), "float32")
    size = ctypes.c_size_t()
    real.xlstm_cuda_workspace_size.argtypes = [ctypes.POINTER(Call), ctypes.c_void_p]
    assert real.xlstm_cuda_workspace_size(kernel.call, ctypes.addressof(size)) == Status.OK
    assert size.value == kernel.workspace_size()


@pytest.mark.skipif(why_no_gpu() is None, reason="there is a GPU: tests/gpu launches on it")
@pytest.mark.parametrize("op", list(CATALOG))
def test_without_a_gpu_the_launch_fails_with_a_status(op: str) -> None:
    real = ctypes.CDLL(str(built()))
    real.xlstm_cuda_launch.argtypes = library().xlstm_cuda_launch.argtypes
    case = next(c for c in OP_CASES if c.op == op)
    kernel = CudaRun(case, make_inputs(case), "float32")
    kernel.add_workspace(1)
    assert real.xlstm_cuda_launch(kernel.call, None) == Status.LAUNCH_FAILED
    real.xlstm_cuda_error_name.restype = ctypes.c_char_p
    assert real.xlstm_cuda_error_name() in (b"cudaErrorInsufficientDriver", b"cudaErrorNoDevice")
    real.xlstm_cuda_variant.argtypes = library().xlstm_cuda_variant.argtypes
    name = ctypes.c_char_p()
    assert real.xlstm_cuda_prepare() == Status.LAUNCH_FAILED
    assert real.xlstm_cuda_variant(kernel.call, ctypes.byref(name)) == Status.LAUNCH_FAILED
    kernel.call.op = 77
    assert real.xlstm_cuda_launch(kernel.call, None) == Status.BAD_OP
