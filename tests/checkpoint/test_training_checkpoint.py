"""A training checkpoint as a source: what was skipped and left out reaches the reader."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.test_export_cost import write_checkpoint
from xlstm_export.checkpoint import weight_files
from xlstm_export.checkpoint.source import Source
from xlstm_export.pipeline import read_checkpoint


@pytest.mark.parametrize("name", ["last.ckpt", "model.pt", "checkpoint.bin"])
def test_a_training_checkpoint_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "run"
    write_checkpoint(tmp_path / "plain", width=64, blocks=1, vocabulary=32)
    plain = read_checkpoint(Source(tmp_path / "plain"))
    arrays = load_file(tmp_path / "plain" / "model.safetensors")
    folder.mkdir()
    shutil.copy(tmp_path / "plain" / "config.json", folder)
    tensors = {f"net.lm.{key}": torch.from_numpy(array) for key, array in arrays.items()}
    content = {
        "state_dict": tensors | {"probe.weight": torch.ones(2)},
        "args": argparse.Namespace(lr=1), "best": np.float64(0.5),
    }  # fmt: skip
    torch.save(content, folder / name)
    torch.save({"state": {}}, folder / "optimizer.pt")
    readings: list[Path] = []
    read_torch = weight_files.read_torch
    monkeypatch.setattr(
        weight_files, "read_torch", lambda path: readings.append(path) or read_torch(path)
    )
    checkpoint = read_checkpoint(Source(folder, prefix="net.lm"))
    assert readings == [folder / name]  # once, left-out names included
    assert checkpoint.left_out == ("probe.weight",)
    assert "argparse.Namespace" in checkpoint.notes[0]
    assert checkpoint.spec == plain.spec
    for key, weight in plain.weights.items():
        np.testing.assert_array_equal(checkpoint.weights[key].load(), weight.load())
