"""Running the worker: its progress passed on, its errors told in a few lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import xlstm_export
from xlstm_export.engine.backend import builder_environment
from xlstm_export.engine.worker import Request, request_text
from xlstm_export.errors import EngineError
from xlstm_export.interrupts import undisturbed
from xlstm_export.ops.catalog import DOMAIN
from xlstm_export.progress import Progress

WORKER = ("-m", "xlstm_export.engine.worker")
_LINES = 4
_MARKS = ("[E]", "Error")
"""What a line of the builder's log that tells of an error holds."""
_NOISE = ("--- ", "In function", "CUDA driver version is insufficient")
"""What such a line holds where it adds nothing: that there is no GPU is no error here."""


def run_worker(request: Request, progress: Progress | None = None) -> dict[str, Any]:
    """Build in a process of its own; what it found. Raises EngineError with the log's errors."""
    with (
        builder_environment(request.backend) as environment,
        tempfile.TemporaryDirectory(prefix="xlstm-export-") as folder,
        open(Path(folder) / "log", "w+", encoding="utf-8", errors="replace") as log,
    ):
        path = Path(folder) / "request.json"
        path.write_text(request_text(request), encoding="utf-8")
        final: dict[str, Any] = {}
        for event in _events(path, environment, log):
            if "progress" in event:
                if progress is not None:
                    progress(*event["progress"])
            else:
                final = event
        if "result" in final:
            return dict(final["result"])
        log.seek(0)
        lines = _telling(log.read())
        raise EngineError("\n".join([final["error"], *lines]))


def _events(request: Path, environment: dict[str, str], log: TextIO) -> Iterator[dict[str, Any]]:
    """What the worker says; at last an error of ours where it ended without a word."""
    root = str(Path(xlstm_export.__file__).parents[1])
    before = environment.get("PYTHONPATH")
    environment = {
        **environment,
        "PYTHONPATH": f"{root}{os.pathsep}{before}" if before else root,
    }
    process: subprocess.Popen[bytes] | None = None
    done = False
    reader, writer = os.pipe()
    try:
        with os.fdopen(reader, encoding="utf-8") as pipe:
            with undisturbed():  # a worker that has started is known here
                process = _start(request, writer, environment, log)
            for line in pipe:
                event = json.loads(line)
                done = done or "progress" not in event
                yield event
        code = process.wait()
    finally:
        if process is not None:
            process.kill()  # on an interrupt; nothing where it has ended
            process.wait()
    if not done:
        how = f"{signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        yield {"error": f"the builder's process ended without a result ({how})"}


def _start(
    request: Path, writer: int, environment: dict[str, str], log: TextIO
) -> subprocess.Popen[bytes]:
    """The worker, which alone holds ``writer`` from here on. Raises EngineError."""
    try:
        return subprocess.Popen(
            [sys.executable, *WORKER, str(request), str(writer)],
            cwd=request.parent,  # a file onnx.py in the user's folder is not the package
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[writer],
        )  # fmt: skip
    except OSError as error:
        raise EngineError(
            f"{sys.executable}: the builder's process cannot be started ({error.strerror})"
        ) from error
    finally:
        os.close(writer)


def _telling(log: str) -> list[str]:
    """The few lines that say what is wrong: our plugins' where there are any, or the builder's."""
    ours, theirs = [], []
    for line in log.splitlines():
        text = line.removeprefix("[E]").strip()
        if text.startswith(f"{DOMAIN} "):
            ours.append(text)
        elif any(mark in line for mark in _MARKS) and not any(noise in line for noise in _NOISE):
            theirs.append(text)
    return list(dict.fromkeys(ours or theirs))[-_LINES:]
