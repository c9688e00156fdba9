"""The session library with sanitizers, laid out by ``cmake --install``."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

from tests.plugins import ort_sanitized
from tests.plugins.native_builds import ROOT
from tests.plugins.sanitized import Sanitizer


def json_headers() -> Path:
    """Folder of nlohmann/json.hpp."""
    given = os.environ.get("XLSTM_JSON_INCLUDE")
    if given:
        return Path(given)
    folder = ROOT / "build" / "json-headers"
    _run("sh", ROOT / "plugins" / "fetch_json_headers.sh", folder)
    return folder


def installed(sanitizer: Sanitizer, prefix: Path) -> Path:
    """``prefix``, in the build folder of ``ort_sanitized``; skips where there is no compiler."""
    folder = ort_sanitized.built(sanitizer).parents[1]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        settings = ["-DXLSTM_SESSION=ON", f"-DXLSTM_JSON_INCLUDE={json_headers()}"]
        _run("cmake", folder, *settings)
        jobs = str(os.cpu_count() or 1)
        _run("cmake", "--build", folder, "--target", "xlstm_session", "--parallel", jobs)
        _run("cmake", "--install", folder, "--prefix", prefix)
    return prefix


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
