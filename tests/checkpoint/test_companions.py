"""What a bundle keeps of its source beside the weights."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.families.block_stack_checkpoints import make_block_stack
from tests.families.large_checkpoints import make_hf
from xlstm_export.checkpoint.companions import copy_companions
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import CheckpointError
from xlstm_export.pipeline import export

COMPANIONS = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json",
}  # fmt: skip
OTHERS = {"README.md", "training_args.bin", "optimizer.pt", "run.py", "model.safetensors.bak"}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return make_block_stack(tmp_path / "source")[0]


def test_tokenizer_and_configuration_come_along(tmp_path: Path) -> None:
    folder = make_hf(tmp_path / "source").source.path
    for name in (COMPANIONS - {"config.json"}) | OTHERS:
        (folder / name).write_text(name)
    made = export(folder, tmp_path / "bundle")
    files = {path.name for path in made.path.iterdir()}
    assert files == COMPANIONS | {"model.onnx", "model.onnx.data", "xlstm_export.json"}
    for name in COMPANIONS:
        assert (made.path / name).read_bytes() == (folder / name).read_bytes()


def test_a_configuration_from_elsewhere_is_the_one_kept(source: Source, tmp_path: Path) -> None:
    config = tmp_path / "mine.yml"
    (source.path / "config.yaml").rename(config)
    (source.path / "tokenizer.json").write_text("{}")
    (tmp_path / "out").mkdir()
    copy_companions(Source(source.path / "model.safetensors", config), tmp_path / "out")
    assert (tmp_path / "out" / "config.yml").read_bytes() == config.read_bytes()
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_a_companion_that_may_not_be_read_is_named(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the target, as if that could not be written."""

    def read_bytes(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (source.path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(CheckpointError, match=r": cannot be read \(Permission denied\)"):
        export(source.path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_templates_in_a_folder_of_their_own_stay_in_it(source: Source, tmp_path: Path) -> None:
    """transformers 5 keeps further chat templates there; nothing else of the folder is kept."""
    folder = source.path / "additional_chat_templates"
    folder.mkdir()
    (folder / "tools.jinja").write_text("{{ messages }}")
    (folder / "notes.txt").write_text("no template")
    (source.path / "chat_template.jinja").write_text("{{ messages[0] }}")
    out = tmp_path / "out"
    out.mkdir()
    copy_companions(source, out)
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == ["additional_chat_templates/tools.jinja", "chat_template.jinja", "config.yaml"]
