"""Where the files beside the weights are looked for: there, and a tokenizer one folder up."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlstm_export.checkpoint.companions import copy_companions
from xlstm_export.checkpoint.source import Source


def filled(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def copied(source: Source, folder: Path) -> dict[str, str]:
    folder.mkdir()
    copy_companions(source, folder)
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def test_files_beside_the_weights(tmp_path: Path) -> None:
    names = {
        "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja",
        "additional_chat_templates/a.jinja",
    }  # fmt: skip
    source = filled(tmp_path / "run", *names, "model.safetensors", "optimizer.pt")
    filled(tmp_path, "tokenizer.json", "vocab.txt", "config.yaml")
    for path in (source, source / "model.safetensors"):
        assert copied(Source(path), tmp_path / f"out {path.name}") == {n: n for n in names}


@pytest.mark.parametrize("given", [".", "last.ckpt"])
def test_a_tokenizer_one_folder_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    source = filled(tmp_path / "run" / "checkpoint-5", "config.yaml", "last.ckpt")
    above = ("tokenizer.json", "special_tokens_map.json", "config.json", "generation_config.json")
    filled(tmp_path / "run", *above)
    monkeypatch.chdir(source)
    found = copied(Source(Path(given)), tmp_path / "out")
    assert set(found) == {"config.yaml", "tokenizer.json", "special_tokens_map.json"}


def test_files_that_only_look_like_a_tokenizer_above_are_left(tmp_path: Path) -> None:
    source = filled(tmp_path / "run", "config.yaml")
    filled(tmp_path, "vocab.txt", "tokenizer.py", "merges.txt")
    assert set(copied(Source(source), tmp_path / "out")) == {"config.yaml"}
