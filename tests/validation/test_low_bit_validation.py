"""What validate says of weights in few bits: exact for what they are, and damage is seen."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from xlstm_export.bundle.manifest import MODEL_FILE
from xlstm_export.validation.participants import WIDENED

OPTIONS: dict[str, dict[str, Any]] = {
    "stack-mixed": {"weight_format": "int4", "block_size": 16},
    "stack-tied": {"weight_format": "int8", "block_size": 32, "dtype": "fp16"},
    "large-fused": {"weight_format": "int4", "block_size": 16, "keep_wide": ["*.q.weight"]},
    "hf-tied": {"weight_format": "int4", "block_size": 32, "matmul_nbits": True},
    "hf-bf16": {"weight_format": "int4", "block_size": 32, "symmetric": False, "dtype": "bf16"},
    "vil-two": {"weight_format": "int4", "block_size": 32},
    "tirex-small": {"weight_format": "int4", "block_size": 32, "numerics": "fp32"},
}


@pytest.fixture(scope="module")
def exported(library: Library, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("low-bit")
    return {
        name: xe.export(library.source(BY_ID[name]).path, folder / name, **options).path
        for name, options in OPTIONS.items()
    }


@pytest.mark.parametrize("name", OPTIONS)
def test_upstream_on_the_same_numbers_agrees(
    library: Library, exported: dict[str, Path], name: str
) -> None:
    """The reference is upstream's module, which knows nothing of blocks."""
    report = xe.validate(exported[name], library.source(BY_ID[name]).path)
    assert report.verdict == "validated", [r for r in report.results if not r.judgement.ok]
    assert WIDENED in report.notes


@pytest.mark.parametrize("part", ["weight", "scale"])
def test_a_number_that_changed_is_seen(
    library: Library, exported: dict[str, Path], tmp_path: Path, part: str
) -> None:
    """Corrupt scales and numbers of a projection."""
    bundle = shutil.copytree(exported["stack-mixed"], tmp_path / "damaged")
    model = onnx.load(str(bundle / MODEL_FILE))
    tensor = next(t for t in model.graph.initializer if t.name.endswith(f"up_z.{part}"))
    tensor.raw_data = tensor.raw_data[:64][::-1] + tensor.raw_data[64:]
    onnx.save(model, str(bundle / MODEL_FILE))
    report = xe.validate(bundle, library.source(BY_ID["stack-mixed"]).path)
    assert report.verdict == "failed"
    assert any("not those that export wrote" in note for note in report.notes)
