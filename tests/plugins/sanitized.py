"""The C library built with sanitizers, and Python children that run it.

A child gets the sanitizer's runtime preloaded, since Python itself is built without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.plugins.native_builds import ROOT, build_c_library

QUIET = "-Wno-maybe-uninitialized -Wno-array-bounds -Wno-stringop-overflow"
"""Flow warnings raise false alarms on instrumented code, and warnings are errors."""

OPTIONS = {
    # Python frees little at exit; sizes that no memory holds must come back as null
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=66",
}


@dataclass(frozen=True)
class Sanitizer:
    """Value of XLSTM_SANITIZE, and the runtime that a child needs first."""

    flags: str
    runtime: str


ADDRESS = Sanitizer("address,undefined", "libasan.so")
THREAD = Sanitizer("thread", "libtsan.so")


def why_not(sanitizer: Sanitizer) -> str | None:
    """Why this machine cannot build it, with the cure; None where it can."""
    if shutil.which("cmake") is None:
        return "no cmake: install it"
    if shutil.which("g++") is None:
        return "no g++: install it"
    if not _runtime(sanitizer.runtime).is_absolute():
        return f"g++ has no {sanitizer.runtime}: install the sanitizer libraries of GCC"
    return None


def build(sanitizer: Sanitizer) -> Path:
    """Folder of libxlstm_c built so."""
    settings = {
        "XLSTM_SANITIZE": sanitizer.flags,
        "CMAKE_CXX_COMPILER": "g++",
        "CMAKE_CXX_FLAGS_RELEASE": "-O1",
        "CMAKE_CXX_FLAGS": QUIET,
    }
    return build_c_library(f"sanitize-{sanitizer.flags.replace(',', '-')}", settings)


def run_child(
    sanitizer: Sanitizer, library: Path, arguments: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """``python *arguments`` at the checkout's root, with the kernels of the folder ``library``."""
    # libstdc++ too: the runtime looks up the C++ exception functions when it starts
    runtimes = [_runtime(sanitizer.runtime), _runtime("libstdc++.so")]
    command = [sys.executable, *arguments]
    if sanitizer is THREAD and (setarch := shutil.which("setarch")):
        command = [setarch, "-R", *command]  # its shadow memory needs a fixed address layout
    return subprocess.run(
        command,
        cwd=ROOT,
        env={
            **os.environ,
            **OPTIONS,
            "LD_PRELOAD": " ".join(map(str, runtimes)),
            "XLSTM_LIBRARY_DIR": str(library),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def _runtime(name: str) -> Path:
    """The compiler's copy of a library; a bare name where it has none."""
    command = ["g++", f"-print-file-name={name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())
