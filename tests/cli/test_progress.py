"""Progress: a bar where stderr is a terminal, a line now and then where it is a file."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from xlstm_export_cli import console

import xlstm_export as xe
from tests.cli.conftest import Made


class Terminal(io.StringIO):
    """Stderr that is drawn on."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many seconds pass for lines of progress."""
    now = 0.0

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    return wait


def test_a_file_gets_a_line_now_and_then(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress_bar("export") as progress:
        for second in range(13):
            progress("writing weights", 10**9 * second, 12 * 10**9, "bytes")
            clock(1)
        progress("checking", 0, 0)
        clock(5)
        progress("checking", 3, 4, "tensors")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "export writing weights 5.0 GB of 12.0 GB",
        "export writing weights 10.0 GB of 12.0 GB",
        "export checking 3/4 tensors",
    ]
    assert "\x1b" not in err


def test_short_work_says_nothing_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bar("export") as progress:
        progress("writing weights", 1, 2, "bytes")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_with_bytes_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with console.progress_bar("export") as progress:
        progress("writing [weights]", 0, 8_000_000, "bytes")
        progress("writing [weights]", 2_000_000, 8_000_000, "bytes")
    drawn = terminal.getvalue()
    assert "export writing [weights]" in drawn
    assert "2.0 MB of 8.0 MB" in drawn
    assert "━" in drawn
    elapsed, left = drawn.rsplit("8.0 MB", 1)[1].split()[:2]
    assert elapsed.count(":") == 2
    assert left.count(":") == 2


def test_an_export_counts_bytes_and_a_validation_steps(made: Made, tmp_path: Path) -> None:
    told: list[tuple[str, int, int, str]] = []

    def progress(what: str, done: int, total: int, unit: str = "") -> None:
        told.append((what, done, total, unit))

    bundle = xe.export(made.checkpoints / "stack", tmp_path / "out", progress=progress)
    whole = {(what, total, unit) for what, _, total, unit in told}
    ((what, total, unit),) = whole
    assert (what, unit) == ("writing weights", "bytes")
    assert total <= (bundle.path / "model.onnx.data").stat().st_size
    counts = [done for _, done, _, _ in told]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert 0 < counts[-1] < total
    told.clear()
    xe.validate(bundle, made.checkpoints / "stack", upstream=False, batch=1, progress=progress)
    steps = [(done, total) for what, done, total, unit in told if unit == "steps"]
    assert steps
    assert max(done for done, _ in steps) == steps[0][1]
