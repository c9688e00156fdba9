"""The public names: lazy, complete, documented, typed."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import xlstm_export as xe

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name in xe.__all__ if name != "__version__"]
HEAVY = {"torch", "onnxruntime", "onnx", "onnx_ir", "numpy", "transformers", "xlstm", "tokenizers"}


def test_the_list_is_the_one_of_the_type_checker() -> None:
    """What a type checker and an editor see is what is there when the package runs."""
    tree = ast.parse(Path(xe.__file__).read_text(encoding="utf-8"))
    (block,) = [n for n in tree.body if isinstance(n, ast.If)]
    imported = {
        (alias.asname or alias.name, f"{node.module}.{alias.name}")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = {
        (name, f"{getattr(xe, name).__module__}.{getattr(xe, name).__name__}") for name in NAMES
    }
    assert imported == found
    assert set(dir(xe)) == set(xe.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_documented_and_typed(name: str) -> None:
    value = getattr(xe, name)
    assert inspect.getdoc(value)
    if inspect.isfunction(value):
        hints = typing.get_type_hints(value, vars(sys.modules[value.__module__]) | _types())
        assert set(inspect.signature(value).parameters) | {"return"} <= hints.keys() | {"return"}
        assert "Raises" in (value.__doc__ or "") or name in {"diagnose", "on_stop", "report_json"}
    for member, attribute in vars(value).items() if inspect.isclass(value) else ():
        if not member.startswith("_") and inspect.isroutine(attribute):
            assert inspect.getdoc(getattr(value, member)), f"{name}.{member}"


def _types() -> dict[str, object]:
    """What pipeline.py and inference.py import for the type checker alone."""
    return {name: getattr(xe, name) for name in NAMES if inspect.isclass(getattr(xe, name))}


def test_importing_and_listing_load_nothing_heavy() -> None:
    code = (
        "import sys, xlstm_export as xe; dir(xe); xe.CheckpointError; "
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not HEAVY & set(done.stdout.split())


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        xe.nothing  # noqa: B018
    assert (ROOT / "xlstm_export" / "py.typed").is_file()
