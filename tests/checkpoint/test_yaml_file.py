"""YAML of unknown origin: fields, or an error that names the file."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from xlstm_export.checkpoint.yaml_file import load_yaml
from xlstm_export.errors import CheckpointError


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
        ("a: 2020-13-45\n", "not a readable YAML file .*month"),
        ("a: !!int x\n", "not a readable YAML file"),
        ("a: !!bool x\n", "not a readable YAML file"),
        ("a: !!timestamp x\n", "not a readable YAML file"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as error:
        load_yaml(write(tmp_path, text))
    assert "config.yaml" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_yaml(tmp_path / "config.yaml")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(path: Path, encoding: str) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    path = write(tmp_path, "a: 1\n")
    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(CheckpointError, match=r"config.yaml: cannot be read \(Permission denied\)"):
        load_yaml(path)
