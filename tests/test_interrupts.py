"""Signals while a folder is written: unwound, put off, or left to the program."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_output import fill, names
from xlstm_export import interrupts, output
from xlstm_export.output import new_folder


@pytest.fixture(autouse=True)
def _signals_as_in_a_terminal() -> Iterator[None]:
    """The tests may run in the background or under nohup, where some are ignored."""
    before = {number: signal.getsignal(number) for number in interrupts.STOPPING}
    for number in before:
        is_interrupt = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
    yield
    for number, old in before.items():
        signal.signal(number, old)


@pytest.mark.parametrize("number", interrupts.STOPPING)
def test_signals_unwind_and_are_restored(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        with new_folder(tmp_path / "out"):
            signal.raise_signal(number)
    assert names(tmp_path) == []
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_stop_the_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = output.shutil.rmtree

    def impatient(path: Path, **options: bool) -> None:
        signal.raise_signal(signal.SIGINT)
        remove(path, **options)

    monkeypatch.setattr(output.shutil, "rmtree", impatient)
    with pytest.raises(KeyboardInterrupt):
        with new_folder(tmp_path / "new" / "out"):
            signal.raise_signal(signal.SIGTERM)
    assert names(tmp_path) == []


def test_a_signal_between_the_two_renames_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "out"
    with new_folder(bundle) as work:
        fill(work, "old")
    rename = Path.rename

    def interrupted(self: Path, to: Path) -> Path:
        signal.raise_signal(signal.SIGTERM)
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        with new_folder(bundle, overwrite=True) as work:
            fill(work, "new")
    assert (bundle / "text").read_text() == "new"
    assert names(bundle.parent) == ["out"]


def test_a_program_with_its_own_handler_keeps_it(tmp_path: Path) -> None:
    seen: list[int] = []
    with interrupts.on_stop(lambda number, _: seen.append(number)):
        with new_folder(tmp_path / "out"):
            signal.raise_signal(signal.SIGTERM)
    assert seen == [signal.SIGTERM]
    assert (tmp_path / "out").is_dir()


def test_ignored_signals_stay_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with new_folder(tmp_path / "out"):
            signal.raise_signal(signal.SIGHUP)  # as under nohup
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "out").is_dir()
