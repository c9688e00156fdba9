"""Writing a folder or a file all at once: complete under its name, or not there at all."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from xlstm_export.errors import TargetError


@contextmanager
def new_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends well.

    An existing ``out`` is an error unless ``overwrite``: then it is swapped by two renames. On
    any exception, Ctrl-C and SIGTERM included, nothing is left behind. Raises TargetError.
    """
    check_target(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise TargetError(f"{out}: cannot be written ({error.strerror})") from error
    try:
        with _terminated_as_exception():
            yield work
            work.chmod(0o777 & ~_umask())
            _swap(work, out)
    except OSError as error:
        raise TargetError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_target(out: Path, overwrite: bool = False) -> None:
    """Raise TargetError when ``out`` may not be written, before any work is done."""
    if out.exists() and not overwrite:
        raise TargetError(f"{out}: already exists; choose another -o or add --overwrite")
    if out.exists() and not out.is_dir():
        raise TargetError(f"{out}: is a file, and a bundle is a folder; choose another -o")
    if out.is_dir() and any(out.iterdir()) and not (out / "xlstm_export.json").is_file():
        raise TargetError(f"{out}: holds other files than a bundle; --overwrite would delete them")
    if out.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise TargetError(f"{out}: is the current folder or above it; choose another -o")


def write_text(path: Path, text: str) -> None:
    """Write ``path`` under a temporary name, then rename it. Raises TargetError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            work.write_text(text, encoding="utf-8")
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)
    except OSError as error:
        raise TargetError(f"{path}: cannot be written ({error.strerror or error})") from error


def _swap(work: Path, out: Path) -> None:
    if not out.exists():
        work.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
    out.rename(old / out.name)
    try:
        work.rename(out)
    except OSError:
        (old / out.name).rename(out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


@contextmanager
def _terminated_as_exception() -> Iterator[None]:
    """Let SIGTERM unwind the stack like Ctrl-C, so that clean-up runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
