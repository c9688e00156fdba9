"""The real command line in a child process, with the peak memory it reached."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

_PROGRAM = """
import re, sys
from xlstm_export_cli.main import main
try:
    main()
finally:
    status = open("/proc/self/status").read()
    sys.stderr.write("\\n" + re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
"""


@dataclass(frozen=True)
class ChildRun:
    """What a command printed, the seconds from start to exit, and its peak resident bytes.

    ``cpu_seconds`` are those of all its threads together. The peak is VmHWM at exit: pages of
    mapped files count.
    """

    stdout: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run_cli(arguments: Sequence[str], codes: Collection[int] = (0,)) -> ChildRun:
    """``xlstm-export`` with ``arguments``.

    Raises RuntimeError with its message when its exit code is none of ``codes``.
    """
    start, cpu = time.perf_counter(), _cpu_of_children()
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    messages, _, peak = result.stderr.rpartition("\n")
    if result.returncode not in codes:
        raise RuntimeError(f"{arguments[0]} failed: {messages.strip() or peak}")
    cpu = _cpu_of_children() - cpu
    return ChildRun(result.stdout, seconds, cpu, int(peak) * 1024)


def _cpu_of_children() -> float:
    """Of those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
