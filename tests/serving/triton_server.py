"""The real tritonserver, out of the nvidia-pytriton wheel: it runs without a GPU.

The wheel carries the Python backend alone. Its stub of this Python goes into a folder beside the
backend, libpython's folder and the wheel's libraries onto the server's path. The stub reads no
PYTHONPATH: where a server's own Python has the packages, the tests write their places in model.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path(os.environ.get("XLSTM_TRITON_DIR", ROOT / ".triton"))
"""What make test puts there: the wheel, and a numpy 1: the backend's stub reads no array of 2."""


def home() -> Path:
    """The wheel's server; skips where it is not installed."""
    if not (PACKAGES / "pytriton").is_dir():
        pytest.skip(
            f"no {PACKAGES}: pip install --no-deps --target .triton nvidia-pytriton numpy<2"
        )
    return PACKAGES / "pytriton" / "tritonserver"


def backends(folder: Path) -> Path:
    """A folder of backends with the stub of this Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home() / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        pytest.skip(f"the wheel has no stub for Python {version}")
    shutil.copytree(home() / "backends" / "python", folder / "python")
    shutil.copy(stub, folder / "python")
    return folder


def with_paths(model: Path) -> None:
    """Let the model of the Python backend in the folder ``model`` find this checkout's packages."""
    program = model / "1" / "model.py"
    paths = [str(PACKAGES), str(ROOT), *filter(None, sys.path)]
    docstring, rest = program.read_text().split("\n\n", 1)
    program.write_text(f"{docstring}\n\nimport sys\n\nsys.path[:0] = {paths!r}\n{rest}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextlib.contextmanager
def running(repository: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server that serves ``repository`` and has loaded what it could; its log."""
    port, log = free_port(), folder / "log"
    carried = PACKAGES / "nvidia_pytriton.libs"  # what the stub is linked with
    libraries = os.pathsep.join([str(sysconfig.get_config_var("LIBDIR")), str(carried)])
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries, "OMP_NUM_THREADS": "1"}
    command = [home() / "bin" / "tritonserver", "--model-repository", repository,
               "--backend-directory", backends(folder / "backends"), "--allow-grpc", "false",
               "--metrics-address", "127.0.0.1", "--metrics-port", free_port(),
               "--http-address", "127.0.0.1", "--http-port", port,
               "--exit-on-error", "false", "--exit-timeout-secs", "3",
               "--strict-readiness", "false"]  # fmt: skip
    with log.open("w") as file:
        child = subprocess.Popen(list(map(str, command)), env=environment, stdout=file, stderr=file)
        try:
            _wait(child, port, log)
            yield f"127.0.0.1:{port}", log
        finally:
            child.terminate()
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()


def metrics_address(log: Path) -> str:
    """Where the server of this log tells its numbers."""
    found = re.search(r"Started Metrics Service at ([\d.:]+)", log.read_text())
    assert found, log.read_text()[-3000:]
    return found[1]


def _wait(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/v2/health/live").status_code == 200:
                return
        assert child.poll() is None, log.read_text()[-3000:]
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-3000:])
