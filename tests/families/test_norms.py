"""Norm weights as a fork stores them are told in export, inspect and the report."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import xlstm_export as xe
from tests.families.block_stack_checkpoints import edit_tensors, make_block_stack
from xlstm_export import pipeline
from xlstm_export.checkpoint.source import Source

BLOCKS, HEADS = ("xlstm_norm.weight", "ffn_norm.weight"), ("outnorm.weight", "group_norm.weight")


def shifted(source: Source, ends: tuple[str, ...], by: float = 1.0) -> Source:
    """``source`` with ``by`` added to the tensors that end so."""
    tensors = load_file(source.path / "model.safetensors")
    edit_tensors(source, {k: v + by for k, v in tensors.items() if k.endswith(ends)})
    return source


@pytest.mark.parametrize("lm", [True, False])
@pytest.mark.parametrize(("ends", "what"), [(BLOCKS, "blocks"), (HEADS, "heads")])
@pytest.mark.parametrize("stored_type", [torch.float32, torch.bfloat16])
def test_norms_stored_plainly_are_told(
    tmp_path: Path, lm: bool, ends: tuple[str, ...], what: str, stored_type: torch.dtype
) -> None:
    source, _ = make_block_stack(tmp_path, lm=lm, stored_type=stored_type)
    assert pipeline.read_checkpoint(source).notes == ()
    (note,) = pipeline.read_checkpoint(shifted(source, ends)).notes
    assert note.startswith(f"WARNING: the stored weights of the norms of the {what} all lie near 1")
    assert "w - 1" in note
    assert "another model" in note


def test_only_all_of_a_kind_are_told(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path)
    shifted(source, ("post_blocks_norm.weight", "blocks.0.xlstm_norm.weight", "group_norm.weight"))
    assert pipeline.read_checkpoint(source).notes == ()


def test_export_inspect_and_the_report_say_it(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path / "a", num_blocks=2)
    note = pipeline.read_checkpoint(shifted(source, BLOCKS)).notes[0]
    bundle = xe.export(source.path, tmp_path / "out")
    assert bundle.notes == (note,)
    facts = xe.inspect(source.path)
    assert facts.data["notes"] == [note]
    assert facts.words["notes"] == [note]
    assert note in xe.validate(bundle, source.path).notes
