"""``recipes`` and ``export --recipe``, as a user meets them."""

from __future__ import annotations

from pathlib import Path

import pytest

import xlstm_export as xe
from tests.cli.conftest import Made
from tests.cli.terminal import run_cli, succeed, succeed_json


def test_the_list_and_one_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text, entries = succeed("recipes"), succeed_json("recipes")
    assert [entry["name"] for entry in entries] == list(xe.recipes())
    for recipe in xe.recipes().values():
        assert f"{recipe.name} " in text
        assert recipe.title in text
    whole = succeed("recipes", "vil-tiny")
    (entry,) = [entry for entry in entries if entry["name"] == "vil-tiny"]
    assert succeed_json("recipes", "vil-tiny") == entry
    for words in (entry["source"], entry["licence"], *entry["measured"], *entry["commands"]):
        assert words in whole
    assert "model_size 192, blocks 24" in whole
    assert "notes:" not in whole


def test_a_recipe_that_is_none() -> None:
    for words in (("recipes", "nope"), ("export", "x", "-o", "y", "--recipe", "nope")):
        outcome = run_cli(*words)
        assert outcome.code != 0
        assert "--recipe: nope is not one of sallm-xlstm-125m, tirex, " in outcome.err


def test_an_export_by_a_recipe(made: Made, tmp_path: Path) -> None:
    """Of a checkpoint here: the published one is not."""
    source = made.checkpoints / "hf"
    told = succeed("export", source, "--recipe", "xlstm-7b", "-o", tmp_path / "out")
    assert f"validate {tmp_path / 'out'} --reference {source}" in told
    (outputs,) = xe.open(tmp_path / "out").manifest.outputs
    assert outputs.shape[1] == 1


def test_neither_source_nor_recipe(tmp_path: Path) -> None:
    outcome = run_cli("export", "-o", tmp_path / "out")
    assert outcome.code != 0
    assert "--recipe: not given, and no checkpoint either" in outcome.err
