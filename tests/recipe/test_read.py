"""Recipes: what they say fits the families and the options there are, and slips are found."""

from __future__ import annotations

from pathlib import Path

import pytest

import xlstm_export as xe
from xlstm_export.families.registry import FAMILIES
from xlstm_export.families.vil.variants import variant
from xlstm_export.lowering.options import make_options
from xlstm_export.recipe.read import read_recipe

RECIPES = xe.recipes()
PUBLISHED = {
    "xlstm-7b", "xlstm-7b-instruct", "tirex", "tirex-2", "vil-tiny", "vil-tinyplus", "vil-small",
    "vil-smallplus", "vil-base", "vil2-tiny", "vil2-small", "vil2-base", "xlstm-512-native",
    "xlstm-247m-wikipedia", "xlstm-406m-wikipedia", "sallm-xlstm-125m",
}  # fmt: skip

WHOLE = """
title: a model
source: org/name
family: hf
licence: MIT
sizes: {model_size: 4}
"""


def test_every_published_model_has_one() -> None:
    assert set(RECIPES) == PUBLISHED
    assert {recipe.family for recipe in RECIPES.values()} < set(FAMILIES)


@pytest.mark.parametrize("name", RECIPES)
def test_family_and_options_are_ones_that_there_are(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    assert recipe.family in FAMILIES
    make_options(**recipe.export)
    assert recipe.sizes
    is_file = recipe.source.startswith("https://")
    assert is_file or recipe.source.count("/") == 1
    assert is_file is (recipe.file is not None)
    assert len(recipe.commands) == 2 + is_file
    assert f"--recipe {name} " in recipe.commands[-2]


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("vil")])
def test_a_vision_lstm_has_the_sizes_by_which_it_is_known(name: str) -> None:
    sizes = RECIPES[name].sizes
    patch = (sizes["patch"], sizes["patch"])
    version = 1 if sizes["version"] == 1 else 2
    assert variant(version, sizes["model_size"], sizes["blocks"], patch, patch) == name


def test_one_by_its_name() -> None:
    assert xe.find_recipe("tirex") == RECIPES["tirex"]
    with pytest.raises(xe.OptionError, match=r"nope is not one of sallm-xlstm-125m, ") as caught:
        xe.find_recipe("nope")
    assert caught.value.option == "recipe"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (WHOLE.replace("family: hf\n", ""), 'missing value for field "family"'),
        (WHOLE + "licence_url: x\n", "licence_url"),
        (WHOLE.replace("size: 4", "size: four"), 'wrong value type for field "sizes"'),
        (WHOLE + "notes:\n  - a note: with a colon\n", 'wrong value type for field "notes"'),
        (WHOLE.replace("{", "["), "not a readable YAML file"),
    ],
)
def test_a_slip_is_named_with_its_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "slip.yaml"
    path.write_text(WHOLE)
    assert read_recipe(path).name == "slip"
    path.write_text(text)
    with pytest.raises(xe.CheckpointError) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
