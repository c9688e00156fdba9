"""A network of one's own from the command line: export and validate by --module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.terminal import assert_short_error, run_cli
from tests.modules.networks import Detector
from tests.plugins.native_builds import ROOT

SOURCE = """
import torch
from tests.modules.networks import Detector


def make():
    return Detector().eval(), torch.ones(2, 9, 5)
"""


def command(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """In ``folder``, by the installed command: nothing but it puts the folder on Python's path."""
    code = (
        f"import sys; sys.path[:] = [{str(ROOT)!r}, {str(ROOT / 'cli')!r}] + "
        "[p for p in sys.path if p]; from xlstm_export_cli.main import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=folder, capture_output=True, text=True
    )


def test_export_then_validate(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SOURCE)
    torch.manual_seed(0)
    torch.save(Detector().state_dict(), tmp_path / "w.pt")
    words = ("--module", "mine:make", "--weights", "w.pt")
    made = command(tmp_path, "export", *words, "--states", "-o", "out")
    assert made.returncode == 0, made.stderr
    assert "xlstm-export validate out --module mine:make --weights w.pt" in made.stdout
    found = command(tmp_path, "validate", "out", *words)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "verdict: validated" in found.stdout
    other = command(tmp_path, "validate", "out", "--module", "mine:make")
    assert other.returncode == 1
    assert "verdict: failed" in other.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("validate", "out", "--module", "a:b", "--reference", "x"),
        ("validate", "out", "--module", "a:b", "--prefix", "x"),
        ("export", "x", "-o", "out", "--module", "a:b"),
        ("export", "-o", "out", "--module", "a:b", "--recipe", "tirex"),
        ("export", "-o", "out", "--module", "a:b", "--logits", "last"),
        ("export", "-o", "out", "--module", "a:b", "--asymmetric"),
        ("export", "-o", "out", "--module", "a:b", "--family", "hf"),
        ("validate", "out", "--module", "a:b", "--family", "hf"),
        ("validate", "out", "--module", "a:b", "--no-upstream"),
    ],
    ids=" ".join,
)
def test_a_network_stands_in_the_place_of_a_checkpoint(words: tuple[str, ...]) -> None:
    outcome = run_cli(*words)
    assert outcome.code == 2
    assert "--module stands in the place of" in outcome.err


@pytest.mark.parametrize(
    "words",
    [
        ("export", "folder", "-o", "out", "--weights", "best.pt"),
        ("export", "-o", "out", "--recipe", "tirex", "--weights", "best.pt"),
        ("export", "folder", "-o", "out", "--states"),
        ("validate", "out", "--reference", "folder", "--weights", "best.pt"),
    ],
    ids=" ".join,
)
def test_options_of_a_network_are_not_dropped_without_it(words: tuple[str, ...]) -> None:
    """The weights of the folder would be exported in the place of those that were named."""
    outcome = run_cli(*words)
    assert outcome.code == 2
    assert "goes with --module alone" in outcome.err


def test_validate_needs_something_to_compare_with() -> None:
    outcome = run_cli("validate", "out")
    assert outcome.code == 2
    assert "give --reference SOURCE, or --module" in outcome.err


def test_what_is_wrong_with_the_function_is_a_short_error() -> None:
    outcome = run_cli("export", "-o", "out", "--module", "no_such:make")
    assert_short_error(outcome, "no_such cannot be imported", code=2)
