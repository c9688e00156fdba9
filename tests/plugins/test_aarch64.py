"""The kernels compiled for AArch64: the code is NEON, and under emulation its numbers are right."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.cases import OP_CASES, Array, OpCase, make_inputs
from tests.ops.op_models import assert_within_rule
from tests.plugins.kernels import KernelRun
from tests.plugins.native_builds import ROOT, build_c_library
from tests.plugins.test_kernels import SIZES
from xlstm_export.native import ISA_VARIABLE
from xlstm_export.ops.schema import TX_DTYPES

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
OBJDUMP, NM = "aarch64-linux-gnu-objdump", "aarch64-linux-gnu-nm"
LIBRARIES = Path("/usr/aarch64-linux-gnu")
CASES = [case for case in (*OP_CASES, *SIZES) if case.size["T"] < 200]
Job = tuple[OpCase, str]


@pytest.fixture(scope="module")
def built() -> Path:
    """Folder of libxlstm_c for AArch64."""
    for tool, package in (("cmake", "cmake"), (COMPILER, "g++-aarch64-linux-gnu")):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: install the Debian package {package}")
    settings = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": COMPILER,
    }
    return build_c_library("cross-aarch64", settings)


@pytest.fixture(scope="module")
def program(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run_calls.cpp linked with the library."""
    if shutil.which(EMULATOR) is None:
        pytest.skip(f"no {EMULATOR}: install the Debian package qemu-user")
    program = tmp_path_factory.mktemp("aarch64") / "run_calls"
    source = ROOT / "tests" / "plugins" / "run_calls.cpp"
    flags = ["-std=c++17", "-Wall", "-Werror", f"-I{ROOT / 'plugins' / 'capi'}"]
    link = [f"-L{built}", f"-Wl,-rpath,{built}", "-lxlstm_c", "-pthread"]
    subprocess.run([COMPILER, *flags, source, "-o", program, *link], check=True)
    return program


def emulate(
    program: Path, folder: Path, jobs: Sequence[Job], forced: str | None, threads: int = 1
) -> tuple[str, list[dict[str, Array]]]:
    """The instruction set in use, and the outputs of each job."""
    kernels = [KernelRun(case, make_inputs(case, tx), tx) for case, tx in jobs]
    calls, results = folder / "calls", folder / "results"
    calls.write_bytes(b"".join(as_bytes(kernel, threads) for kernel in kernels))
    environment = {k: v for k, v in os.environ.items() if k != ISA_VARIABLE}
    environment |= {ISA_VARIABLE: forced} if forced else {}
    command = [EMULATOR, "-L", LIBRARIES, program, calls, results]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    data = results.read_bytes()
    for (case, tx), kernel in zip(jobs, kernels, strict=True):
        assert int.from_bytes(data[:4], "little") == 0, f"{case} {tx}: status {data[0]}"
        data = data[4:]
        for buffer in kernel.outputs.values():
            buffer.bytes[:] = np.frombuffer(data[: buffer.nbytes], np.uint8)
            data = data[buffer.nbytes :]
    assert not data
    return done.stdout.strip(), [kernel.results() for kernel in kernels]


def as_bytes(kernel: KernelRun, threads: int) -> bytes:
    """One call in the form that run_calls.cpp reads."""
    given = [b.nbytes for b in kernel.inputs.values()]
    wanted = [b.nbytes for b in kernel.outputs.values()]
    counts = given + [0] * (9 - len(given)) + wanted + [0] * (5 - len(wanted)) + [threads]
    operands = b"".join(b.bytes.tobytes() for b in kernel.inputs.values())
    return bytes(kernel.call) + struct.pack("<15q", *counts) + operands


def test_the_code_is_neon(built: Path) -> None:
    command = [OBJDUMP, "-d", "--no-show-raw-insn", built / "libxlstm_c.so"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    single, double = re.findall(r"fmla\s+v\d+\.4s", text), re.findall(r"fmla\s+v\d+\.2d", text)
    assert len(single) > 100
    assert len(double) > 100


def test_no_instruction_set_of_another_processor_is_built(built: Path) -> None:
    symbols = subprocess.run(
        [NM, "-C", built / "libxlstm_c.so"], check=True, capture_output=True, text=True
    ).stdout
    assert "xlstm::cpu::neon::" in symbols
    assert "xlstm::cpu::avx" not in symbols


def test_it_loads_where_glibc_is_2_28(built: Path) -> None:
    command = [OBJDUMP, "-T", built / "libxlstm_c.so"]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    versions = set(re.findall(r"\((GLIBC|GLIBCXX)_([\d.]+)\)", table))
    assert ("GLIBC", "2.17") in versions
    for name, number in versions:
        version = tuple(int(part) for part in number.split("."))
        assert version <= ((2, 28) if name == "GLIBC" else (3, 4, 24)), f"{name}_{number}"


@pytest.mark.parametrize("forced", [None, "portable"])
def test_emulated_kernels_obey_the_rule(program: Path, forced: str | None, tmp_path: Path) -> None:
    jobs = [(case, tx) for case in CASES for tx in (TX_DTYPES[:1] if forced else TX_DTYPES)]
    name, results = emulate(program, tmp_path, jobs, forced)
    assert name == (forced or "neon")
    for (case, tx), got in zip(jobs, results, strict=True):
        assert_within_rule(case, make_inputs(case, tx), tx, got)


def test_emulated_threads_change_no_bit(program: Path, tmp_path: Path) -> None:
    jobs = [(case, tx) for case in SIZES[:6] for tx in ("float32", "bfloat16")]
    (_, alone), (_, shared) = (emulate(program, tmp_path, jobs, None, n) for n in (1, 3))
    for a, b in zip(alone, shared, strict=True):
        assert all(a[name].tobytes() == b[name].tobytes() for name in a)
