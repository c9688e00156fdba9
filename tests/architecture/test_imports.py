"""The flow is one way, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "onnxruntime", "xlstm", "transformers", "tokenizers", "huggingface_hub")


def _loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_import_contracts_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_loads_no_framework() -> None:
    assert not _loaded_after("import xlstm_export") & {*HEAVY, "onnx", "numpy"}


def test_the_command_line_starts_without_frameworks() -> None:
    """``--help`` and every error before real work come without torch's start-up time."""
    assert not _loaded_after("import xlstm_export_cli.app") & set(HEAVY)


def test_reading_and_lowering_need_no_torch() -> None:
    statement = "import xlstm_export.families.registry, xlstm_export.lowering.lower"
    assert not _loaded_after(statement) & set(HEAVY)
