"""YAML of unknown origin: fields, or an error that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlstm_export.errors import CheckpointError
from xlstm_export.families.yaml_file import load_yaml


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_fields_are_read_and_references_followed(tmp_path: Path) -> None:
    path = write(tmp_path, "a: &size 4\nb: *size\n3: three\n")
    assert load_yaml(path) == {"a": 4, "b": 4, "3": "three"}


def test_a_bomb_of_references_is_refused_at_once(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    path = write(tmp_path, "\n".join(["a0: &a0 [x]", *levels]))
    with pytest.raises(CheckpointError, match=r"config\.yaml: .*more than 16 aliases"):
        load_yaml(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not a readable YAML file"),
        ("- 1\n- 2\n", "holds no fields"),
        ("", "holds no fields"),
        ("a: !!python/object/apply:os.getcwd []\n", "not a readable YAML file"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as error:
        load_yaml(write(tmp_path, text))
    assert "config.yaml" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_yaml(tmp_path / "config.yaml")
