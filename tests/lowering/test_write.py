"""The graph on disk, wherever the folder is."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest

from tests.families.block_stack_checkpoints import make_block_stack
from xlstm_export.families import block_stack
from xlstm_export.lowering.lower import lower_model
from xlstm_export.lowering.options import LoweringOptions, make_options
from xlstm_export.lowering.write import ALIGNMENT, check_model, data_size, write_model


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX systems only")
@pytest.mark.parametrize("name", ["ünï".encode(), b"bad\xffname", b"plain"])
def test_folders_of_any_name(tmp_path: Path, name: bytes) -> None:
    """The checker takes text: it must see the model, and what is wrong with it, all the same."""
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    checkpoint = block_stack.read(make_block_stack(tmp_path / "source")[0])
    path = write_model(lower_model(checkpoint.spec, checkpoint.weights, LoweringOptions()), folder)
    check_model(path)
    (folder / "model.onnx.data").rename(folder / "away")
    with pytest.raises(onnx.checker.ValidationError, match=r"model\.onnx\.data"):
        check_model(path)
    assert {p.name for p in folder.iterdir()} == {"model.onnx", "away"}


@pytest.mark.parametrize("weight_format", [None, "int8", "int4"])
def test_the_size_of_the_data_is_known_before(tmp_path: Path, weight_format: str | None) -> None:
    checkpoint = block_stack.read(make_block_stack(tmp_path / "source")[0])
    options = make_options(weight_format=weight_format, block_size=weight_format and 16)
    model = lower_model(checkpoint.spec, checkpoint.weights, options)
    size = data_size(model)
    write_model(model, tmp_path)
    assert 0 <= size - (tmp_path / "model.onnx.data").stat().st_size < ALIGNMENT
