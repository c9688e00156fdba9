"""What a block-stack checkpoint cannot be, and how the user is told."""

from __future__ import annotations

import os
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.families.block_stack_checkpoints import edit_config, edit_tensors, make_block_stack
from tests.families.upstream import upstream
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import (
    BackendUnavailableError,
    CheckpointError,
    UnsupportedModelError,
    XlstmExportError,
)
from xlstm_export.families import block_stack


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slstm_block__slstm__function": "lstm"}, "slstm.function: lstm"),
        ({"slstm_block__slstm__num_gates": 3}, "slstm.num_gates: 3"),
        ({"slstm_block__slstm__input_shape": "SBGNH"}, "slstm.input_shape: SBGNH"),
        ({"slstm_block__slstm__output_shape": "SBH"}, "slstm.output_shape: SBH"),
        ({"slstm_block__slstm__internal_input_shape": "SBGNH"}, "internal_input_shape: SBGNH"),
        ({"slstm_block__slstm__constants": {"A": 1}}, "slstm.constants: {'A': 1}"),
        ({"slstm_block__slstm__gradient_recurrent_clipval": 0.5}, "clipval: 0.5"),
        ({"slstm_block__slstm__conv1d_kernel_size": 1}, "slstm.conv1d_kernel_size: 1"),
        ({"mlstm_block__mlstm__conv1d_kernel_size": 0}, "mlstm.conv1d_kernel_size: 0"),
        ({"slstm_block__feedforward__act_fn": "tanh"}, "feedforward.act_fn: tanh"),
        ({"slstm_block__feedforward__ff_type": "moe"}, "feedforward.ff_type: moe"),
    ],
)
def test_unsupported_options_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    source, _ = make_block_stack(tmp_path, layout="cuda")
    edit_config(source, **change)
    with pytest.raises(UnsupportedModelError) as caught:
        block_stack.read(source)
    assert words in str(caught.value)
    assert str(tmp_path / "config.yaml") in str(caught.value)


def test_options_of_absent_blocks_do_not_matter(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path / "mlstm", slstm_at=[])
    edit_config(source, slstm_block__slstm__function="lstm")
    assert upstream(block_stack.FAMILY, source).run(np.array([[1, 2]]))[0].shape == (1, 2, 11)
    source, _ = make_block_stack(tmp_path / "slstm", slstm_at="all")
    edit_config(source, mlstm_block__mlstm__conv1d_kernel_size=0)
    assert upstream(block_stack.FAMILY, source).run(np.array([[1, 2]]))[0].shape == (1, 2, 11)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slstm_block__slstm__num_head": 2}, ["unknown fields: slstm_block.slstm.num_head"]),
        ({"name": "mine"}, ["unknown fields: name"]),
        ({"mlstm_block__mlstm__num_heads": "four"}, ["mlstm_block.mlstm.num_heads", "four"]),
        ({"dropout": "high"}, ["dropout", "high"]),
        ({"slstm_at": "none"}, ["slstm_at"]),
        ({"mlstm_block": None, "slstm_block": None}, ["mlstm_block and slstm_block"]),
        ({"slstm_block": None}, ["slstm_at", "slstm_block is missing"]),
        ({"slstm_at": [3]}, ["slstm_at names block 3"]),
        ({"slstm_at": [0]}, ["block 0 is an slstm", "blocks.0.xlstm.slstm_cell"]),
        ({"vocab_size": ""}, ["vocab_size is missing", "token_embedding.weight"]),
        ({"vocab_size": 12}, ["vocab_size is 12", "token_embedding.weight"]),
        ({"embedding_dim": 32}, ["embedding_dim is 32", "xlstm_norm.weight says 16"]),
        ({"num_blocks": 4}, ["num_blocks is 4", "3 blocks"]),
        ({"num_blocks": 0}, ["num_blocks is 0"]),
        ({"mlstm_block__mlstm__num_heads": 2}, ["mlstm.num_heads is 2", "igate.weight says 4"]),
        ({"mlstm_block__mlstm__num_heads": 0}, ["mlstm.num_heads is 0"]),
        ({"slstm_block__slstm__num_heads": 4}, ["slstm.num_heads is 4", "fgate.weight says 2"]),
        ({"slstm_block__slstm__num_heads": 3}, ["num_heads is 3", "does not divide 16"]),
        ({"mlstm_block__mlstm__qkv_proj_blocksize": 8}, ["blocksize is 8", "q_proj.weight says 4"]),
        ({"mlstm_block__mlstm__conv1d_kernel_size": 3}, ["size is 3", "conv.weight says 4"]),
        ({"slstm_block__slstm__conv1d_kernel_size": 0}, ["size is 0", "conv.weight is there"]),
        ({"slstm_block__slstm__group_norm_weight": False}, ["group_norm_weight is False"]),
        ({"slstm_block__feedforward": None}, ["feedforward is null", "ffn.proj_down.weight"]),
        ({"slstm_block__feedforward__bias": True}, ["feedforward.bias", "ffn.proj_up.bias"]),
        ({"bias": True}, ["bias is True", "q_proj.bias is missing"]),
        ({"add_post_blocks_norm": False}, ["add_post_blocks_norm", "post_blocks_norm.weight"]),
    ],
)
def test_wrong_configuration_is_named(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    source, _ = make_block_stack(tmp_path)
    edit_config(source, **change)
    with pytest.raises(CheckpointError) as caught:
        block_stack.read(source)
    message = str(caught.value)
    assert all(word in message for word in [*words, str(tmp_path / "config.yaml")]), message
    assert len(message.removeprefix(str(tmp_path))) < 200


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("embedding_dim", "embedding_dim is 128 (upstream's default, the file does not say), but"),
        ("num_blocks", "num_blocks is 1 (upstream's default, the file does not say), but"),
        ("slstm_block__slstm__num_heads", "num_heads is 4 (upstream's default, the file does"),
    ],
)
def test_a_default_that_does_not_fit_is_called_one(tmp_path: Path, field: str, words: str) -> None:
    source, _ = make_block_stack(tmp_path)
    edit_config(source, slstm_at=[] if field == "num_blocks" else [1], **{field: ""})
    with pytest.raises(CheckpointError, match=re.escape(words)) as caught:
        block_stack.read(source)
    assert str(tmp_path / "config.yaml") in str(caught.value)


def test_a_prefix_before_every_name_is_named(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({f"student.{name}": tensor for name, tensor in load_file(path).items()}, path)
    with pytest.raises(CheckpointError, match=r"is missing, but student\.xlstm_.*--prefix student"):
        block_stack.read(source)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("blocks.0.xlstm.learnable_skip", None, "learnable_skip is missing"),
        ("blocks.1.xlstm.slstm_cell._bias_", torch.zeros(4, 16), "_bias_ has shape [4, 16]"),
        (
            "blocks.0.xlstm.proj_down.weight",
            torch.zeros(16, 9),
            "[16, 9], where",
        ),
        ("blocks.0.xlstm.q_proj.weight", torch.zeros(7, 4, 4), "expected [8, 4, 4]"),
        ("blocks.1.xlstm.slstm_cell._recurrent_kernel_", torch.zeros(2, 8, 8), "[2, 32, 8]"),
        ("blocks.0.extra", torch.zeros(1), "unknown tensors: xlstm_block_stack.blocks.0.extra"),
        ("layers.0.ffn.proj_up.weight", torch.zeros(1), "unknown tensors"),
    ],
)
def test_wrong_tensors_are_named(
    tmp_path: Path, key: str, value: torch.Tensor | None, words: str
) -> None:
    source, _ = make_block_stack(tmp_path)
    edit_tensors(source, {f"xlstm_block_stack.{key}": value})
    with pytest.raises(CheckpointError) as caught:
        block_stack.read(source)
    message = str(caught.value)
    assert words in message
    assert f"{tmp_path / 'model.safetensors'}" in message
    assert key in message


def test_bare_stack_with_vocabulary_is_a_contradiction(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path, lm=False)
    assert block_stack.read(source).spec.vocab_size is None
    edit_config(source, vocab_size=11)
    with pytest.raises(CheckpointError, match="vocab_size is 11, but tensor token_embedding"):
        block_stack.read(source)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("kind", ["torch", "plain", "module"])
def test_pickles_with_code_are_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    _, module = make_block_stack(tmp_path, file="model.pt")
    content = module if kind == "module" else {"a": Trap(tmp_path / "executed")}
    if kind == "plain":
        (tmp_path / "model.pt").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="state_dict") as caught:
        block_stack.read(Source(tmp_path))
    assert str(tmp_path / "model.pt") in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mlstm_block: [", "not a readable YAML file"),
        ("- 1", "holds no fields"),
        ("model:\n", "model holds no fields"),
        ("mlstm_block: !!python/object:os.system {}", "not a readable YAML file"),
    ],
)
def test_unreadable_configuration(tmp_path: Path, text: str, words: str) -> None:
    source, _ = make_block_stack(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=words) as caught:
        block_stack.read(source)
    assert str(tmp_path / "config.yaml") in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path / "a")
    weights = (tmp_path / "a" / "model.safetensors").rename(tmp_path / "other.safetensors")
    assert block_stack.detect(source)
    with pytest.raises(CheckpointError, match=r"expected one of model\.safetensors, model\.pt"):
        block_stack.read(source)
    alone = Source(weights)
    assert block_stack.detect(alone)
    with pytest.raises(CheckpointError, match="--config"):
        block_stack.read(alone)
    with pytest.raises(CheckpointError, match=r"none\.yaml: no such file"):
        block_stack.read(Source(weights, config=tmp_path / "none.yaml"))
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file"):
        block_stack.read(Source(tmp_path / "none.pt", config=tmp_path / "a" / "config.yaml"))


def test_other_things_are_not_detected(tmp_path: Path) -> None:
    assert not block_stack.detect(Source(tmp_path))
    assert not block_stack.detect(Source(tmp_path / "none"))
    (tmp_path / "config.yaml").write_text("embedding_dim: 4096\nnum_heads: 8\nvocab_size: 50304\n")
    assert not block_stack.detect(Source(tmp_path))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        block_stack.detect(Source(tmp_path / "broken" / "model.safetensors"))
    (tmp_path / "broken" / "notes.md").write_text("no weights")
    assert not block_stack.detect(Source(tmp_path / "broken" / "notes.md"))
    (tmp_path / "config.yaml").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="not a readable YAML file"):
        block_stack.detect(Source(tmp_path))


def test_oracle_without_upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = make_block_stack(tmp_path)
    monkeypatch.setitem(sys.modules, "xlstm", None)
    with pytest.raises(BackendUnavailableError, match=r"xlstm.*pip install 'torch\S+ 'xlstm"):
        upstream(block_stack.FAMILY, source)
    assert block_stack.read(source).spec.vocab_size == 11


def test_oracle_names_what_upstream_refuses(tmp_path: Path) -> None:
    """Sizes come from the tensors, so a wrong factor is upstream's problem alone."""
    source, _ = make_block_stack(tmp_path)
    edit_config(source, mlstm_block__mlstm__proj_factor=3.0)
    block_stack.read(source)
    with pytest.raises(XlstmExportError, match="size mismatch for xlstm_block_stack") as caught:
        upstream(block_stack.FAMILY, source)
    assert str(tmp_path / "model.safetensors") in str(caught.value)
