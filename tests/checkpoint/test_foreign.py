"""What is no xLSTM checkpoint is named for what it is, with the cure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from xlstm_export.checkpoint.source import Source
from xlstm_export.checkpoint.weight_files import read_weight_files
from xlstm_export.errors import CheckpointError
from xlstm_export.families.registry import find_family

MODELS = {
    "Vision Transformer": [
        "cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight",
    ],
    "Vision Mamba": ["pos_embed", "patch_embed.proj.weight", "layers.0.mixer.A_log"],
    "PyxLSTM": ["embedding.weight", "blocks.0.lstm.layers.0.weight_ih", "output_layer.weight"],
    r"a LoRA adapter and not a whole model: .*merge_and_unload\(\)": [
        "base_model.model.backbone.blocks.0.mlstm_layer.q.lora_A.weight",
    ],
}  # fmt: skip
CONTENTS = {
    "GGUF file": b"GGUF\x03\0\0\0",
    "Keras": b"\x89HDF\r\n\x1a\n",
    "numpy array": b"\x93NUMPY\x01\0",
    "TensorFlow Lite": b"\x1c\0\0\0TFL3",
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "web page": b"<!DOCTYPE html>\n<html>",
    "gzip archive: unpack it": b"\x1f\x8b\x08\0",
}


def tensors(*names: str) -> dict[str, np.ndarray]:
    return {name: np.zeros(2, np.float32) for name in names}


@pytest.mark.parametrize(("words", "names"), MODELS.items(), ids=range(len(MODELS)))
def test_other_models_are_named_by_their_tensors(
    tmp_path: Path, words: str, names: list[str]
) -> None:
    save_file(tensors(*names), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: holds .*{words}"):
        find_family(Source(tmp_path))
    # with a configuration of ours beside it, too
    (tmp_path / "config.yaml").write_text("mlstm_block: {}\n")
    source = Source(tmp_path)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: holds .*{words}"):
        find_family(source).read(source)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.bin", "model"])
@pytest.mark.parametrize(("words", "start"), CONTENTS.items(), ids=range(len(CONTENTS)))
def test_files_are_named_by_their_first_bytes(
    tmp_path: Path, words: str, start: bytes, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(start + bytes(600))
    with pytest.raises(CheckpointError, match=f"{name}: is .*{words}"):
        read_weight_files([path])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.gguf", "GGUF"), ("model.onnx", "ONNX graph"), ("__0_0.distcp", "dcp_to_torch"),
        ("model.keras", "Keras"), ("flax_model.msgpack", "Flax"), ("saved_model.pb", "TensorFlow"),
        ("zero_to_fp32.py", "DeepSpeed"), ("_CHECKPOINT_METADATA", "Orbax"),
    ],
)  # fmt: skip
def test_folders_are_named_by_what_is_in_them(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=f"{tmp_path}: holds .*{words}"):
        find_family(Source(tmp_path))


@pytest.mark.parametrize("name", ["model.onnx", "a.gguf", "m.keras", "__0_0.distcp"])
def test_a_file_given_itself_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=f"{name}: not a weights file by its name, but a"):
        find_family(Source(tmp_path / name))


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    save_file(tensors("q.lora_A.weight"), tmp_path / "adapter_model.safetensors")
    config = tmp_path / "adapter_config.json"
    for content, words in (
        (json.dumps({"base_model_name_or_path": "NX-AI/xLSTM-7b"}), "adapter of NX-AI/xLSTM-7b: "),
        ("{}", "adapter: "),
        ("{", "adapter: "),
    ):
        config.write_text(content)
        with pytest.raises(CheckpointError, match=f"holds a LoRA {words}.*merge_and_unload"):
            find_family(Source(tmp_path))


def test_what_nobody_knows_is_only_not_recognised(tmp_path: Path) -> None:
    save_file(tensors("a"), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not recognised as an xLSTM checkpoint"):
        find_family(Source(tmp_path))
