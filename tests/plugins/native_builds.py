"""Builds of the C library for one test each, kept in the checkout's ``build`` for the next run."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build_c_library(name: str, settings: Mapping[str, str]) -> Path:
    """Folder of libxlstm_c, built in ``build/name``; as ``build_target``."""
    return build_target(name, "xlstm_c", settings) / "plugins" / "capi"


def build_target(name: str, target: str, settings: Mapping[str, str]) -> Path:
    """The folder ``build/name``, where ``target`` is built with CMake's ``settings``.

    One process at a time builds; a later one compiles what changed. Raises RuntimeError with the
    compiler's words where the build fails.
    """
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        given = [f"-D{key}={value}" for key, value in settings.items()]
        _cmake(
            "-S",
            ROOT,
            "-B",
            folder,
            "-DXLSTM_WERROR=ON",
            f"-DPython3_EXECUTABLE={sys.executable}",
            *given,
        )
        _cmake("--build", folder, "--target", target, "--parallel", str(os.cpu_count() or 1))
    return folder


def _cmake(*arguments: str | Path) -> None:
    # flags of this environment are for other builds
    environment = {k: v for k, v in os.environ.items() if k not in ("CXX", "CXXFLAGS", "LDFLAGS")}
    done = subprocess.run(
        ["cmake", *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"cmake {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
