"""Families by name, and what every family offers."""

from __future__ import annotations

import importlib

import pytest

from tests.model_cases import BY_ID, ONE_PER_FAMILY, Library, ModelCase
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import OptionError
from xlstm_export.families.registry import FAMILIES, find_family
from xlstm_export.model.storage import Storage


@pytest.mark.parametrize("case", [*ONE_PER_FAMILY, BY_ID["vil-two"]], ids=str)
def test_a_family_gives_oracles_as_often_as_asked(library: Library, case: ModelCase) -> None:
    """Also after its file ``oracle`` was imported, which Python puts under that name."""
    source = library.source(case)
    family = find_family(source)
    checkpoint = family.read(source)
    importlib.import_module(f"xlstm_export.families.{checkpoint.spec.family}.oracle")
    names = {find_family(source).oracle(checkpoint, Storage("float32")).name for _ in range(2)}
    assert len(names) == 1


def test_a_family_that_is_none(library: Library) -> None:
    source = library.source(ONE_PER_FAMILY[0])
    with pytest.raises(OptionError, match=f"gpt is not one of auto, {', '.join(FAMILIES)}") as told:
        find_family(Source(source.path), "gpt")
    assert told.value.option == "family"
