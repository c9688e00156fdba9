"""Files stay small enough to be read whole, and names say what things are."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path
    for folder in ("xlstm_export", "cli", "tests", "benchmarks", "recipes")
    for path in (ROOT / folder).rglob("*.py")
)
MOST_LINES = 400
MOST_FUNCTION_LINES = 60
BANNED_NAMES = {"utils", "util", "helpers", "common", "misc", "base"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_is_small_and_well_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert path.stem not in BANNED_NAMES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MOST_FUNCTION_LINES, node.name


def test_no_two_tests_have_one_name() -> None:
    """Without packages pytest imports them by it, and collects the first alone."""
    names = Counter(path.name for path in FILES if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_machine_path_or_registry_in_the_project() -> None:
    wrong = ("/" + "work/", "/" + "root/", "py" + "pi.org", "npm" + "js.org")
    suffixes = {".py", ".md", ".toml", ".sh", ".txt", ".yaml", ".yml"}
    made = {"out", "build", "dist"}
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if path.suffix in suffixes and not any(p.startswith(".") or p in made for p in parts):
            text = path.read_text(encoding="utf-8")
            assert not [w for w in wrong if w in text], path
