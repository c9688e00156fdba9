"""Which files of a folder are its weights: the layouts that people hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.errors import CheckpointError

SHARDS = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
VARIANT = [f"model.bf16-0000{n}-of-00002.safetensors" for n in (1, 2)]
INDEX = "model.safetensors.index.json"
TRAINER = [
    "optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_0.pth", "scaler.pt",
    "training_args.bin", "config.json", "README.md", "tokenizer.model",
]  # fmt: skip


def filled(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def indexed(folder: Path, name: str, files: list[str]) -> Path:
    content = {"weight_map": {str(i): file for i, file in enumerate(files)}}
    (folder / name).write_text(json.dumps(content))
    return filled(folder, *files)


@pytest.mark.parametrize(
    ("there", "weights"),
    [
        (["model.safetensors"], ["model.safetensors"]),
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["model.safetensors", "model.bf16.safetensors"], ["model.safetensors"]),
        (["model.safetensors", "last.ckpt", "model.pt"], ["model.safetensors"]),
        (["model.safetensors", *SHARDS], ["model.safetensors"]),
        (SHARDS, SHARDS),
        (["model_0.safetensors", "model_1.safetensors"],
         ["model_0.safetensors", "model_1.safetensors"]),
        ([f"model_{n}.safetensors" for n in range(11)],
         [f"model_{n}.safetensors" for n in range(11)]),
        (["pytorch_model.bin", "model.pt"], ["pytorch_model.bin"]),
        (["model.pt", "best.pt"], ["model.pt"]),
        (["model.ckpt"], ["model.ckpt"]),
        (["model.bf16.safetensors"], ["model.bf16.safetensors"]),
        (["model.bf16.safetensors", "last.ckpt"], ["model.bf16.safetensors"]),
        (["last.ckpt"], ["last.ckpt"]),
        (["epoch=3-step=100.ckpt"], ["epoch=3-step=100.ckpt"]),
        (["weights.th"], ["weights.th"]),
        (["model_1000.safetensors"], ["model_1000.safetensors"]),
        (["model_20240517.safetensors"], ["model_20240517.safetensors"]),
        (["model_0001.safetensors"], ["model_0001.safetensors"]),
        (["model_1000.safetensors", "model_2000.safetensors", "model.pt"], ["model.pt"]),
        (["pytorch_model-00001-of-00001.bin"], ["pytorch_model-00001-of-00001.bin"]),
        (VARIANT, VARIANT),
    ],
)  # fmt: skip
def test_layouts(tmp_path: Path, there: list[str], weights: list[str]) -> None:
    folder = filled(tmp_path, *there, *TRAINER)
    assert [path.name for path in find_weight_files(folder)] == weights


@pytest.mark.parametrize(
    ("index", "files"),
    [
        (INDEX, SHARDS), (INDEX, ["a.safetensors", "b.safetensors"]),
        ("pytorch_model.bin.index.json", ["a.bin"]), ("model.safetensors.index.bf16.json", VARIANT),
        ("own.safetensors.index.json", ["own-00001-of-00001.safetensors"]),
    ],
)  # fmt: skip
def test_an_index_stands_for_its_shards(tmp_path: Path, index: str, files: list[str]) -> None:
    indexed(tmp_path, index, files)
    expected = tuple(tmp_path / name for name in files)
    assert find_weight_files(tmp_path) == expected
    assert find_weight_files(tmp_path / index) == expected


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{re.escape(SHARDS[1])}: no such file, one of 3"):
        find_weight_files(filled(tmp_path, SHARDS[0], SHARDS[2]))
    indexed(tmp_path, INDEX, SHARDS)
    (tmp_path / SHARDS[1]).unlink()
    with pytest.raises(CheckpointError, match=rf"lists {re.escape(SHARDS[1])}, which is not in"):
        find_weight_files(tmp_path)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_gap_in_numbered_files_is_named(tmp_path: Path, missing: int) -> None:
    names = [f"model_{n}.safetensors" for n in range(4) if n != missing]
    told = rf"model_{missing}\.safetensors: no such file, one of 4 shards; download it, or give one"
    with pytest.raises(CheckpointError, match=told):
        find_weight_files(filled(tmp_path, *names))
    alone = tmp_path / names[-1]
    assert find_weight_files(alone) == (alone,)


@pytest.mark.parametrize(
    "names",
    [
        ("best.ckpt", "last.ckpt"), ("model.pt", "model.pth"), ("a.safetensors", "b.pt"),
        ("model.bf16.safetensors", "model.fp16.safetensors"),
        ("model-*-of-00002.safetensors", "model-*-of-00003.safetensors"),
        ("model_1000.safetensors", "model_2000.safetensors"),
        ("model_0.safetensors", "model_20240517.safetensors"),
    ],
)  # fmt: skip
def test_two_that_could_be_meant_are_named(tmp_path: Path, names: tuple[str, str]) -> None:
    filled(tmp_path, *(name.replace("*", "00001") for name in names))
    words = " and in ".join(map(re.escape, names))
    with pytest.raises(CheckpointError, match=f"weights in {words}; give the one"):
        find_weight_files(tmp_path)


def test_a_shard_alone_asks_for_its_folder(tmp_path: Path) -> None:
    filled(tmp_path, SHARDS[0], "model_0.safetensors", "model_1.safetensors")
    for name, count in ((SHARDS[0], 3), ("model_1.safetensors", 2)):
        with pytest.raises(CheckpointError, match=f"is one of {count} shards; give their folder"):
            find_weight_files(tmp_path / name)
    (tmp_path / "model_1.safetensors").unlink()
    filled(tmp_path, "model_500.safetensors")
    alone = tmp_path / "model_0.safetensors"
    assert find_weight_files(alone) == (alone,)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no weights; expected one of model\.safetensors"):
        find_weight_files(filled(tmp_path, *TRAINER))
