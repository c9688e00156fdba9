"""The custom-op library built with sanitizers, in the build folder of ``sanitized``.

XLSTM_ORT_INCLUDE names the folder with ONNX Runtime's headers; without it they are fetched into
``build/onnxruntime-headers``, as ``make wheel`` does.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from tests.plugins.native_builds import ROOT
from tests.plugins.sanitized import Sanitizer, build, why_not


def built(sanitizer: Sanitizer) -> Path:
    """Folder of libxlstm_ort built so; skips, with the cure, where there is no compiler for it."""
    reason = why_not(sanitizer)
    if reason:
        pytest.skip(reason)
    folder = build(sanitizer).parents[1]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _run("cmake", folder, "-DXLSTM_ORT=ON", f"-DXLSTM_ORT_INCLUDE={ort_headers()}")
        jobs = str(os.cpu_count() or 1)
        _run("cmake", "--build", folder, "--target", "xlstm_ort", "--parallel", jobs)
    return folder / "plugins" / "ort"


def ort_headers() -> Path:
    """Folder of onnxruntime_c_api.h."""
    given = os.environ.get("XLSTM_ORT_INCLUDE")
    if given:
        return Path(given)
    folder = ROOT / "build" / "onnxruntime-headers"
    _run("sh", ROOT / "plugins" / "fetch_onnxruntime_headers.sh", folder)
    return folder


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
