"""A tensor of another size than the rest is the one that is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.families.block_stack_checkpoints import make_block_stack
from tests.families.large_checkpoints import make_hf, make_xlstm_large
from xlstm_export import pipeline
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import CheckpointError

STACK = "xlstm_block_stack.blocks"
LARGE = "backbone.blocks.1"


def stack(folder: Path) -> Source:
    return make_block_stack(folder, slstm_at=[1])[0]


def large(folder: Path) -> Source:
    return make_xlstm_large(folder).source


def fused(folder: Path) -> Source:
    return make_xlstm_large(folder, weight_mode="fused").source


def hugging(folder: Path) -> Source:
    return make_hf(folder).source


@pytest.mark.parametrize(
    ("make", "key", "axis", "count", "what"),
    [
        (stack, f"{STACK}.0.xlstm.proj_down.weight", 1, 1, "inner size"),
        (stack, f"{STACK}.0.xlstm.proj_up.weight", 0, 2, "inner size"),
        (stack, f"{STACK}.0.xlstm.learnable_skip", 0, 1, "inner size"),
        (stack, f"{STACK}.0.xlstm.conv1d.conv.weight", 0, 1, "inner size"),
        (stack, f"{STACK}.1.ffn.proj_down.weight", 1, 1, "feed-forward size"),
        (stack, f"{STACK}.0.xlstm_norm.weight", 0, 1, "model size"),
        (stack, "token_embedding.weight", 1, 1, "model size"),
        (stack, f"{STACK}.0.xlstm.proj_up.weight", 1, 1, "model size"),
        (large, f"{LARGE}.ffn.proj_down.weight", 1, 1, "feed-forward size"),
        (large, f"{LARGE}.ffn.proj_up.weight", 0, 1, "feed-forward size"),
        (large, f"{LARGE}.mlstm_layer.v.weight", 0, 1, "value size"),
        (large, "embedding.weight", 1, 1, "model size"),
        (large, "lm_head.weight", 1, 1, "model size"),
        (fused, f"{LARGE}.ffn.proj_up_gate_z.weight", 0, 2, "feed-forward size"),
        (fused, f"{LARGE}.ffn.proj_down.weight", 1, 1, "feed-forward size"),
        (hugging, "backbone.embeddings.weight", 1, 1, "model size"),
        (hugging, f"{LARGE}.mlstm_layer.out_proj.weight", 1, 1, "value size"),
    ],
)
def test_a_cut_tensor_is_named(
    tmp_path: Path, make: Callable[[Path], Source], key: str, axis: int, count: int, what: str
) -> None:
    source, path = make(tmp_path), tmp_path / "model.safetensors"
    tensors = load_file(path)
    cut = tensors[key].narrow(axis, 0, tensors[key].shape[axis] - count).contiguous()
    save_file(tensors | {key: cut}, path)
    with pytest.raises(CheckpointError) as caught:
        pipeline.read_checkpoint(source)
    message = str(caught.value)
    assert f"tensors disagree on the {what}: " in message
    assert f"{key} {list(cut.shape)}" in message
    if what not in ("feed-forward size",):  # of two tensors either may be the wrong one
        assert f"{what}: {key} {list(cut.shape)}, where" in message


def test_a_fused_tensor_that_is_no_whole_multiple(tmp_path: Path) -> None:
    source, path = stack(tmp_path), tmp_path / "model.safetensors"
    tensors, key = load_file(path), f"{STACK}.0.xlstm.proj_up.weight"
    save_file(tensors | {key: tensors[key][:-1].contiguous()}, path)
    with pytest.raises(CheckpointError, match=r"proj_up\.weight has shape .*not 2 of one inner"):
        pipeline.read_checkpoint(source)
