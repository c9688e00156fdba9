"""Which id a prompt was made to begin with is said, and where a configuration leaves it open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import xlstm_export as xe
from tests.cli.terminal import succeed_json
from tests.families.large_checkpoints import make_hf
from xlstm_export import pipeline
from xlstm_export.checkpoint.source import Source


def with_rule(folder: Path, **fields: Any) -> Source:
    """A checkpoint of transformers whose configuration states ``fields``."""
    source = make_hf(folder, num_blocks=1).source
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return source


@pytest.mark.parametrize(
    ("fields", "is_told"),
    [
        ({"bos_token_id": 3}, True),
        ({"bos_token_id": 3, "force_bos_token_insert": True}, False),
        ({"bos_token_id": 3, "force_bos_token_insert": False}, False),
        ({"bos_token_id": None}, False),
    ],
)
def test_a_rule_that_is_left_open_is_told(
    tmp_path: Path, fields: dict[str, Any], is_told: bool
) -> None:
    notes = pipeline.read_checkpoint(with_rule(tmp_path, **fields)).notes
    assert [("bos_token_id 3" in note, "--bos" in note) for note in notes] == [
        (True, True)
    ] * is_told


def test_a_generation_says_what_its_prompt_begins_with(tmp_path: Path) -> None:
    source = with_rule(tmp_path / "a", bos_token_id=3)
    bundle = xe.export(source.path, tmp_path / "out")
    assert "bos_token_id 3" in bundle.notes[0]
    begun = xe.generate(bundle, [1, 2], bos=True, max_new_tokens=1)
    assert (begun.begin, begun.prompt) == (3, (3, 1, 2))
    plain = xe.generate(bundle, [1, 2], max_new_tokens=1)
    assert (plain.begin, plain.prompt) == (None, (1, 2))
    command = ("run", tmp_path / "out", "--ids", "1,2", "-n", 1)
    assert succeed_json(*command, "--bos")["bos"] == 3
    assert succeed_json(*command)["bos"] is None
