"""The API page shows what is public, and docstrings say what there is to know."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import xlstm_export as xe

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
RAISES_NOTHING = {"diagnose", "on_stop", "report_json"}
FUNCTIONS = [name for name in xe.__all__ if inspect.isfunction(getattr(xe, name))]
CLASSES = [name for name in xe.__all__ if inspect.isclass(getattr(xe, name))]
ERRORS = {name for name in CLASSES if issubclass(getattr(xe, name), Exception)}


def test_the_page_shows_every_public_name_once_and_nothing_else() -> None:
    shown = re.findall(r"^::: xlstm_export\.(\S+)$", PAGE, re.MULTILINE)
    assert sorted(shown) == sorted(xe.__all__)
    assert PAGE.count("\n::: ") == len(shown)
    assert len(FUNCTIONS) + len(CLASSES) + len(["__version__"]) == len(xe.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_and_raises(name: str) -> None:
    """Each parameter by name; each error is a public one; "Raises" stands where there is one."""
    function = getattr(xe, name)
    told = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"``{parameter}(``|:)", told), parameter
    assert bool(re.search(r"\bRaises\s", told)) is (name not in RAISES_NOTHING)
    assert set(re.findall(r"\b[A-Z]\w+Error\b", told)) <= ERRORS


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_and_what_is_public_of_it_have_docstrings(name: str) -> None:
    kind = getattr(xe, name)
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{name}("), "what dataclass writes by itself"
    for member, value in _public_members(kind):
        assert inspect.getdoc(value), member


def _public_members(kind: type) -> list[tuple[str, Any]]:
    own = [base for base in kind.__mro__ if base.__module__.startswith("xlstm_export")]
    return [
        (member, getattr(value, "__func__", value))
        for base in own
        for member, value in vars(base).items()
        if not member.startswith("_")
        and (callable(value) or isinstance(value, (property, classmethod)))
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Session", ("int64 [batch, sequence]", "float32 ``logits``", "int32")),
        ("run_embeddings", ("[B,T,D]", "float32")),
        ("HiddenStates", ("[B,T,D]", "float32")),
        ("export", ("[B,1,vocab]", "int32 [B]")),
    ],
)
def test_tensors_are_told_with_shape_and_type(name: str, words: tuple[str, ...]) -> None:
    told = " ".join((inspect.getdoc(getattr(xe, name)) or "").split())
    assert not [word for word in words if word not in told]
