"""What checks the sources sees every one of them, the command line's package too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from mypy.main import process_options
from xlstm_export_cli import app

from tests.architecture.test_sizes import FILES

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "xlstm_export", ROOT / "cli" / "xlstm_export_cli")
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))


def _module(path: Path) -> str:
    package = next(p for p in PACKAGES if path.is_relative_to(p))
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def test_there_are_sources_of_both_packages() -> None:
    assert len(SOURCES) > 130
    assert Path(app.__file__) in SOURCES


def test_size_tests_see_every_file() -> None:
    assert set(SOURCES) <= set(FILES)


def test_mypy_sees_every_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found, options = process_options(["--config-file", "pyproject.toml"])
    assert options.disallow_untyped_defs
    # these hold no Python: they are there where the native part was built
    folders = ("lib", "include", "include.xlstm", "cmake")
    built = {f"xlstm_export.{folder}" for folder in folders}
    assert {source.module for source in found} - built == {_module(path) for path in SOURCES}


def test_import_contracts_see_every_file() -> None:
    graph = grimp.build_graph("xlstm_export", "xlstm_export_cli", cache_dir=None)
    assert graph.modules == {_module(path) for path in SOURCES}


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xlstm_export", "--version"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.strip()
