"""The C library built with sanitizers, Python children that run it, and what is asked of them.

A child gets the sanitizer's runtime preloaded, since Python itself is built without it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.plugins.native_builds import ROOT, build_c_library

QUIET = "-Wno-maybe-uninitialized -Wno-array-bounds -Wno-stringop-overflow"
"""Flow warnings raise false alarms on instrumented code, and warnings are errors."""

Access = Literal["READ", "WRITE"]

RACE = 66
"""Exit status of a child that ThreadSanitizer ends."""

OPTIONS = {
    # Python frees little at exit; sizes that no memory holds must come back as null
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": f"halt_on_error=1:exitcode={RACE}",
}

REPORTS = ("Sanitizer", "runtime error:")
"""One of these is in every report of the sanitizers."""


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


def announce_end(address: int) -> None:
    """In a child: where the memory ends that a planted fault is about to overrun."""
    print(f"ends at {address:#x}", flush=True)  # a report's exit drops what is buffered


def assert_clean(done: subprocess.CompletedProcess[str]) -> None:
    """Exit status 0 and no report."""
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert not [word for word in REPORTS if word in done.stderr], done.stderr


def assert_overrun(done: subprocess.CompletedProcess[str], access: Access, *frames: str) -> None:
    """AddressSanitizer ended the child at an access to the first byte behind the announced end.

    ``frames`` are in the report's stack. The name of the fault is not asked for: it goes by the
    width, since an access that begins in good memory may be an unknown-crash.
    """
    assert done.returncode != 0, done.stdout
    assert "ERROR: AddressSanitizer: " in done.stderr, done.stderr
    assert f"\n{access} of size " in done.stderr, done.stderr
    end = re.search(r"^ends at (0x[0-9a-f]+)$", done.stdout, re.MULTILINE)
    # GCC 13 says "after" for "to the right of"
    place = r"^(0x[0-9a-f]+) is located 0 bytes (?:to the right of|after) \d+-byte region"
    bad = re.search(place, done.stderr, re.MULTILINE)
    assert end, done.stdout
    assert bad, done.stderr
    assert int(bad[1], 16) == int(end[1], 16), f"{done.stdout}{done.stderr}"
    assert not [frame for frame in frames if frame not in done.stderr], done.stderr


def assert_race(done: subprocess.CompletedProcess[str], *frames: str) -> None:
    """ThreadSanitizer ended the child at a data race; ``frames`` are in the report's stacks."""
    assert done.returncode == RACE, f"{done.stdout}\n{done.stderr}"
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stderr
    assert not [frame for frame in frames if frame not in done.stderr], done.stderr
