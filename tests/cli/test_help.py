"""Help that can be read: whole words on a narrow terminal, and nothing lost there."""

from __future__ import annotations

import re

import pytest

from tests.cli.terminal import run_process

COMMANDS = (
    "inspect",
    "export",
    "build",
    "validate",
    "run",
    "bench",
    "serve",
    "triton",
    "recipes",
    "doctor",
)


def _words(command: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERMINAL_WIDTH", str(columns))
    done = run_process(command, "--help")
    assert done.code == 0
    # a word with a hyphen may be parted after it
    return re.sub(r"-\n\s+", "-", done.out).split()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_word_is_broken_at_40_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, wide = (_words(command, columns, monkeypatch) for columns in (40, 200))
    assert set(narrow) == set(wide)
