"""An export by a recipe: its source, family and options, and what goes before them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import xlstm_export as xe
from tests.families.block_stack_checkpoints import make_block_stack
from tests.families.large_checkpoints import make_hf
from tests.families.vil_checkpoints import make_vil


def test_the_options_are_the_recipes_unless_given(tmp_path: Path) -> None:
    """xlstm-7b wants the last logits alone; the checkpoint is a small one of its family."""
    source = make_hf(tmp_path / "hf").source.path
    made = xe.export(source, tmp_path / "a", recipe="xlstm-7b")
    assert made.manifest.family == "hf"
    assert made.manifest.outputs[0].shape[1] == 1
    made = xe.export(source, tmp_path / "b", recipe="xlstm-7b", logits="all", dtype="fp16")
    assert made.manifest.outputs[0].shape[1] == "sequence"
    assert made.manifest.dtype == "float16"


def test_the_family_is_the_recipes_unless_given(tmp_path: Path) -> None:
    source = make_block_stack(tmp_path / "stack")[0].path
    with pytest.raises(xe.CheckpointError, match=r"config\.json"):
        xe.export(source, tmp_path / "out", recipe="xlstm-7b")
    assert not (tmp_path / "out").exists()
    made = xe.export(source, tmp_path / "out", recipe="xlstm-7b", family="block_stack")
    assert made.manifest.family == "block_stack"


def test_a_file_is_looked_for_here_and_its_download_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = xe.find_recipe("vil2-tiny")
    assert recipe.file == "vil2_tiny16_e800_in1k.th"
    with pytest.raises(xe.CheckpointError) as caught:
        xe.export(None, "out", recipe="vil2-tiny")
    assert str(caught.value).startswith(f"{recipe.file}: not in this folder; download it first: ")
    assert f"curl -fLO {recipe.source}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    made = make_vil(tmp_path / "made")
    shutil.copy(made.path, recipe.file)
    assert xe.export(None, "out", recipe="vil2-tiny").manifest.family == "vil"


def test_neither_a_source_nor_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(xe.OptionError, match="no checkpoint either") as caught:
        xe.export(None, tmp_path / "out")
    assert caught.value.option == "recipe"
