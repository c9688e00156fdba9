"""Exports that cannot begin or do not end: the target's folder looks as it did before."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Made
from tests.cli.terminal import OWN_PROCESS, assert_short_error, run_cli, run_process, succeed
from xlstm_export import pipeline

STOPS_WHILE_WRITING = f"""
import pathlib, signal, time, numpy
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # the tests may run in the background, under nohup
signal.signal(signal.SIGINT, signal.default_int_handler)
read, count = numpy.fromfile, iter(range(1000))
def slow(*args, **options):
    # the norms are read before anything is written
    begun = any(path.suffix == ".partial" for path in pathlib.Path().rglob(".*"))
    if begun and next(count) == 5:
        print("writing", flush=True)
        time.sleep(60)
    return read(*args, **options)
numpy.fromfile = slow
{OWN_PROCESS}
"""
"""The weights are read one by one while they are written: this stops in the midst."""

TARGETS = {
    "exists": ("folder", "already exists"),
    "is a file": ("file", "already exists"),
    "is a dangling link": ("link", "already exists"),
    "below a file": ("file/out", "cannot be written"),
    "below /proc": ("/proc/self/out", "cannot be written"),
    "replaces a file": ("file --overwrite", "is a file"),
    "replaces other files": ("folder --overwrite", "holds other files than a bundle"),
    "replaces the current folder": (". --overwrite", "holds other files than a bundle"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with things in the way."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", TARGETS)
def test_target_that_cannot_be(made: Made, place: Path, name: str) -> None:
    words, message = TARGETS[name]
    before = contents(place)
    outcome = run_cli("export", made.checkpoints / "stack", "-o", *words.split())
    assert_short_error(outcome, words.split()[0], message)
    assert contents(place) == before


def test_replacing_the_bundle_one_stands_in(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed("export", made.checkpoints / "stack", "-o", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    outcome = run_cli("export", made.checkpoints / "stack", "-o", tmp_path / "out", "--overwrite")
    assert_short_error(outcome, "is the current folder or above it")


def test_replacing_the_bundle_that_holds_the_source(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    succeed("export", made.checkpoints / "stack", "-o", out)
    shutil.copytree(made.checkpoints / "stack", out / "source")
    before = contents(tmp_path)
    outcome = run_cli("export", out / "source", "-o", out, "--overwrite")
    assert_short_error(outcome, f"{out}: holds the source")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_stopped_while_writing(
    made: Made, place: Path, number: signal.Signals, code: int, overwrite: bool
) -> None:
    words = ["-o", "new/out"]
    if overwrite:
        succeed("export", made.checkpoints / "stack", "-o", "old")
        words = ["-o", "old", "--overwrite"]
    before = contents(place)
    command = [sys.executable, "-c", STOPS_WHILE_WRITING, "export", made.checkpoints / "stack"]
    with subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        assert any(path.suffix == ".partial" for path in place.rglob(".*"))
        child.send_signal(number)
        _, err = child.communicate(timeout=30)
    assert child.returncode == code
    assert err.strip() == f"error: interrupted ({number.name})"
    assert contents(place) == before


def test_file_system_that_takes_no_more(made: Made, place: Path) -> None:
    before = contents(place)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000,) * 2)"
    outcome = run_process(
        "export", made.checkpoints / "hf", "-o", "new/out", program=f"{limited}; {OWN_PROCESS}"
    )
    assert_short_error(outcome, "new/out: cannot be written", "is the disk full?")
    assert contents(place) == before


def test_disk_full_at_the_manifest(
    made: Made, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "write_manifest", raiser(OSError(errno.ENOSPC, "No space left")))
    before = contents(place)
    outcome = run_cli("export", made.checkpoints / "stack", "-o", "new/out")
    assert_short_error(outcome, "new/out: cannot be written (No space left)")
    assert contents(place) == before


def test_unexpected_error_while_writing(
    made: Made, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_reading(monkeypatch, raiser(RuntimeError("boom\nbang")))
    before = contents(place)
    words = ["export", made.checkpoints / "stack", "-o", "out"]
    outcome = run_cli(*words)
    assert_short_error(outcome, "unexpected RuntimeError: boom", "bug", "--debug", code=70)
    for debug in (["--debug", *words], [*words, "--debug"]):
        interrupt_reading(monkeypatch, raiser(RuntimeError("boom")))
        with pytest.raises(RuntimeError, match="boom"):
            run_cli(*debug)
    assert contents(place) == before


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (MemoryError(), "error: out of memory", 1),
        (OSError(errno.EIO, "Input/output error"), "model.safetensors: cannot be read", 1),
    ],
)
def test_source_that_stops_being_readable(
    made: Made, place: Path, monkeypatch: pytest.MonkeyPatch,
    error: Exception, message: str, code: int,
) -> None:  # fmt: skip
    interrupt_reading(monkeypatch, raiser(error))
    before = contents(place)
    outcome = run_cli("export", made.checkpoints / "stack", "-o", "out")
    assert_short_error(outcome, message, code=code)
    assert contents(place) == before


def test_source_that_shrinks(made: Made, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_reading(monkeypatch, lambda *_, **__: np.zeros(1, np.float32))
    outcome = run_cli("export", made.checkpoints / "stack", "-o", "out")
    assert_short_error(outcome, "model.safetensors: became shorter while it was read")


def test_the_old_bundle_stays_until_the_new_one_is_whole(
    made: Made, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed("export", made.checkpoints / "hf", "-o", "out")
    old = contents(place)
    seen: list[dict[str, bytes]] = []
    read = np.fromfile

    def watch(*args: Any, **options: Any) -> Any:
        here = contents(place)
        seen.append({name: here[name] for name in old})
        return read(*args, **options)

    monkeypatch.setattr(np, "fromfile", watch)
    succeed("export", made.checkpoints / "stack", "-o", "out", "--overwrite")
    assert len(seen) > 10
    assert all(state == old for state in seen)
    new = {name for name in contents(place) if name.startswith("out/")}
    files = ("config.yaml", "model.onnx", "model.onnx.data", "xlstm_export.json")
    assert new == {f"out/{name}" for name in files}
    assert {name for name in contents(place) if "partial" in name or ".old" in name} == set()


def test_export_works_outside_the_main_thread(made: Made, tmp_path: Path) -> None:
    """Only the main thread may set signal handlers."""
    source, out = made.checkpoints / "stack", tmp_path / "out"
    thread = threading.Thread(target=pipeline.export, args=(source, out))
    thread.start()
    thread.join()
    assert (out / "xlstm_export.json").is_file()


def interrupt_reading(monkeypatch: pytest.MonkeyPatch, instead: Callable[..., Any]) -> None:
    """Let the sixth tensor that is read while writing be read by ``instead``."""
    read, count = np.fromfile, itertools.count()

    def fromfile(*args: Any, **options: Any) -> Any:
        return (instead if next(count) == 5 else read)(*args, **options)

    monkeypatch.setattr(np, "fromfile", fromfile)


def raiser(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` with its bytes; folders and links too."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path).encode() if path.is_symlink()
            else b"" if path.is_dir()
            else path.read_bytes()
        )
        for path in folder.rglob("*")
    }  # fmt: skip
