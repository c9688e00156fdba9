"""Which instructions a call of the kernels executes: a child is single-stepped through it (x86-64).

In 64-bit mode the first byte of an instruction gives its encoding away: 0x62 is EVEX (AVX-512),
0xC4 and 0xC5 are VEX (AVX, AVX2, FMA, F16C), anything else is the baseline.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from xlstm_export.native import c_library_path

_TRACE_ME, _PEEK_USER, _SINGLE_STEP = 0, 3, 9
_INSTRUCTION_POINTER = 16 * 8  # of struct user in <sys/user.h>
_ENCODINGS = {0x62: "EVEX", 0xC4: "VEX", 0xC5: "VEX"}


def why_not() -> str | None:
    """Why no process can be stepped here; None where one can."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return "single-stepping is written for Linux on x86-64"
    try:
        executed(lambda: None)
    except OSError as error:
        return f"this system forbids ptrace ({error}): run where processes may be traced"
    return None


def executed(call: Callable[[], None]) -> Counter[str]:
    """Instructions by encoding that ``call`` executes inside the C library. Raises OSError."""
    code = _code_of_the_library()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    child = os.fork()
    if child == 0:
        refused = libc.ptrace(_TRACE_ME, 0, None, None) != 0
        if refused:
            os._exit(1)
        os.kill(os.getpid(), signal.SIGSTOP)
        call()
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        if not os.WIFSTOPPED(os.waitpid(child, 0)[1]):
            raise PermissionError("PTRACE_TRACEME was refused")
        return _count(libc, child, code)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _count(libc: ctypes.CDLL, child: int, code: dict[range, bytes]) -> Counter[str]:
    seen: Counter[str] = Counter()
    while True:
        if libc.ptrace(_SINGLE_STEP, child, None, None) != 0:
            raise OSError(ctypes.get_errno(), "PTRACE_SINGLESTEP")
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            raise ChildProcessError(f"the stepped call ended with status {status}")
        if os.WSTOPSIG(status) == signal.SIGSTOP:
            return seen
        address = libc.ptrace(_PEEK_USER, child, _INSTRUCTION_POINTER, None)
        for where, text in code.items():
            if address in where:
                seen[_ENCODINGS.get(text[address - where.start], "baseline")] += 1


def _code_of_the_library() -> dict[range, bytes]:
    """Its executable pages, by address; a forked child has them at the same place."""
    path = str(c_library_path())
    code = {}
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        if line.endswith(path) and "x" in line.split()[1]:
            first, last = (int(word, 16) for word in line.split()[0].split("-"))
            code[range(first, last)] = ctypes.string_at(first, last - first)
    return code
