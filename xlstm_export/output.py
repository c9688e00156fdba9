"""Writing a folder or a file all at once: complete under its name, or not there at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xlstm_export.errors import TargetError
from xlstm_export.interrupts import terminated_as_exception, undisturbed


@contextmanager
def new_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends well.

    An existing ``out`` is an error unless ``overwrite``: then it is swapped by two renames. On
    any exception, and when the program is told to stop, nothing is left behind. Raises
    TargetError.
    """
    check_target(out, overwrite)
    with terminated_as_exception(), _parents(out), _writing(out):
        work = _beside(out, "partial")
        try:
            work.mkdir()
            yield work
            check_target(out, overwrite)  # it may have come into being meanwhile
            with undisturbed():
                _swap(work, out)
        finally:
            with undisturbed():
                shutil.rmtree(work, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; what is written there replaces ``path`` at the end.

    Raises TargetError, before any work is done where ``path`` is a folder.
    """
    if path.is_dir():
        raise TargetError(f"{path}: is a folder; name a file")
    with terminated_as_exception(), _parents(path), _writing(path):
        work = _beside(path, "partial")
        try:
            work.touch()  # whether it can be written is known before the work is done
            yield work
            work.replace(path)
        finally:
            with undisturbed():
                work.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``path`` under a temporary name, then rename it. Raises TargetError.

    Bytes of a file's name that are no UTF-8 are written as they are.
    """
    with new_file(path) as work:
        work.write_text(text, encoding="utf-8", errors="surrogateescape")


def check_target(out: Path, overwrite: bool = False, source: Path | None = None) -> None:
    """Raise TargetError when ``out`` may not be written, before any work is done.

    ``source``: what is read meanwhile, which an ``out`` to be replaced must not contain.
    """
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise TargetError(f"{out}: already exists; choose another -o or add --overwrite")
    if not out.is_dir():
        raise TargetError(f"{out}: is a file, and a bundle is a folder; choose another -o")
    if any(out.iterdir()) and not (out / "xlstm_export.json").is_file():
        raise TargetError(f"{out}: holds other files than a bundle; --overwrite would delete them")
    if out.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise TargetError(f"{out}: is the current folder or above it; choose another -o")
    if source is not None and source.resolve().is_relative_to(out.resolve()):
        raise TargetError(f"{out}: holds the source {source}, which --overwrite would delete")


def _beside(path: Path, suffix: str) -> Path:
    """A fresh name in the folder of ``path``: renaming is atomic within a file system only."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{suffix}")


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """The folders above ``path``; those made here are removed again when the block fails."""
    with _writing(path):
        missing = [p for p in path.parents if not p.exists()]
    try:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with undisturbed(), contextlib.suppress(OSError):  # another program may use them by now
            for folder in missing:
                folder.rmdir()
        raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # numpy says only how many bytes it could not write
        reason = error.strerror or f"{error}; is the disk full?"
        raise TargetError(f"{path}: cannot be written ({reason})") from error


def _swap(work: Path, out: Path) -> None:
    if not os.path.lexists(out):
        work.rename(out)
        return
    old = _beside(out, "old")
    out.rename(old)
    try:
        work.rename(out)
    except OSError:
        old.rename(out)
        raise
    # a link in place of the old bundle goes, what it points at stays
    old.unlink() if old.is_symlink() else shutil.rmtree(old, ignore_errors=True)
