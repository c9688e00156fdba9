"""The kernels as the library has them, for every target: what each takes, and its instructions.

Read from ``libxlstm_cuda_c.so``, which ``make wheel`` has compiled: no test compiles them again.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.cuda.nvcc import SOURCES
from tests.gpu.kernels import library_path

ELEMENTS = {
    "float": "float32", "__half": "float16", "__nv_bfloat16": "bfloat16", "double": "float64",
}  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """One kernel for one compute capability. ``kernel`` is its name and arguments but the type."""

    kernel: str
    tx: str
    target: int
    registers: int
    stack: int
    """Bytes of local memory: a kernel without has no spill and no array outside registers."""
    static_shared: int
    symbol: str


@cache
def cuobjdump() -> str | None:
    """CUDA's own, beside nvcc or on the path, else the one that triton brings; None: none."""
    nvcc = shutil.which("nvcc")
    beside = Path(nvcc).resolve().with_name("cuobjdump") if nvcc else None
    if beside is not None and beside.is_file():
        return str(beside)
    triton = importlib.util.find_spec("triton")
    folders = triton.submodule_search_locations if triton else None
    brought = [Path(f) / "backends" / "nvidia" / "bin" / "cuobjdump" for f in folders or ()]
    return shutil.which("cuobjdump") or next((str(p) for p in brought if p.is_file()), None)


def _why_not() -> str:
    library = library_path()
    if not library.is_file():
        return f"no {library.name}: make wheel builds it where nvcc is"
    newest = max(path.stat().st_mtime for path in SOURCES.rglob("*") if path.is_file())
    if library.stat().st_mtime < newest:
        return f"{library.name} is older than the kernels' sources: make wheel"
    return "" if cuobjdump() else "no cuobjdump: install the CUDA toolkit's, or triton"


needs_cubins = pytest.mark.skipif(bool(_why_not()), reason=_why_not())


def _dump(*options: str) -> str:
    command = [str(cuobjdump()), *options, str(library_path())]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def ptx_targets() -> set[int]:
    """Those whose PTX the library has, for later GPUs."""
    return {int(word) for word in re.findall(r"\.sm_(\d+)\.ptx", _dump("--list-ptx"))}


@cache
def usages() -> tuple[Usage, ...]:
    """What every kernel takes, of every type and target."""
    found, target = [], 0
    for line in _dump("--dump-resource-usage").splitlines():
        if arch := re.match(r"arch = sm_(\d+)", line):
            target = int(arch[1])
        elif function := re.match(r" Function (\w+):", line):
            symbol = function[1]
        elif sizes := re.match(r" +REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+) ", line):
            registers, stack, shared, local = map(int, sizes.groups())
            found.append((symbol, target, registers, stack + local, shared))
    names = _demangled([symbol for symbol, *_ in found])
    return tuple(
        Usage(*names[symbol], target, registers, stack, shared, symbol)
        for symbol, target, registers, stack, shared in found
    )


def _demangled(symbols: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Kernel and type by symbol."""
    done = subprocess.run(
        ["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True
    )
    names = {}
    for symbol, plain in zip(symbols, done.stdout.splitlines(), strict=True):
        name = re.match(r"[^<]*::(\w+)(?:<(\w+)(?:, ([\w, ]+))?>)?\(", plain)
        assert name is not None, plain
        kernel = name[1] + (f"<{name[3]}>" if name[3] else "")
        names[symbol] = (kernel, ELEMENTS[name[2] or "float"])
    return names


@dataclass(frozen=True)
class Instruction:
    """Where it stands, what it is with its modifiers, and what follows that."""

    address: int
    operation: str
    operands: str


def instructions(usage: Usage) -> list[Instruction]:
    """A kernel's, as disassembled."""
    dumped = _dump("--dump-sass", f"--gpu-architecture=sm_{usage.target}",
                   f"--function={usage.symbol}")  # fmt: skip
    line = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([\w.]+)([^;]*);")
    found = [word for word in map(line.match, dumped.splitlines()) if word]
    return [Instruction(int(word[1], 16), word[2], word[3].strip()) for word in found]


def loop_of(body: Sequence[Instruction], operation: str) -> list[Instruction]:
    """The tightest of the loops that have most of an operation: what runs again and again."""
    loops = []
    for last, instruction in enumerate(body):
        to = re.search(r"\b0x([0-9a-f]+)$", instruction.operands)
        if not (instruction.operation.startswith("BRA") and to):
            continue
        if int(to[1], 16) < instruction.address:
            loops.append([i for i in body[: last + 1] if i.address >= int(to[1], 16)])
    return max(loops, key=lambda loop: (count(loop, operation), -len(loop)))


def count(body: Sequence[Instruction], operation: str) -> int:
    """How many are that, whatever their further modifiers: LDS.128, HMMA."""
    wanted = set(operation.split("."))
    return sum(wanted <= set(i.operation.split(".")) for i in body)
