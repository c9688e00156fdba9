"""Vision-LSTMs in ONNX Runtime against the float64 module, by the rule, and faults planted."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import xlstm_export as xe
from tests.model_cases import BY_ID, VIL, Library, ModelCase
from xlstm_export import pipeline
from xlstm_export.bundle.manifest import BundleDtype
from xlstm_export.checkpoint.source import Source
from xlstm_export.checkpoint.tensor_table import LayerTensors
from xlstm_export.families.registry import find_family
from xlstm_export.families.vil.blocks import Blocks, read_blocks
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.model.layer import Layer
from xlstm_export.model.layers.flipped import Flipped
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.weights import Weight
from xlstm_export.runtime.open import Execution
from xlstm_export.validation.result import Report
from xlstm_export.validation.validate import Task, validate_bundle

vil = importlib.import_module("xlstm_export.families.vil.read")
"""The package has its function under this name."""

ONE, TWO = BY_ID["vil-one"], BY_ID["vil-two"]
NARROW = [BY_ID[f"vil-{name}"] for name in ("one", "one-overlap", "one-bare", "two", "two-resized")]
GRID: list[tuple[ModelCase, BundleDtype]] = [(case, "float32") for case in VIL]
GRID += [(case, "float16") for case in NARROW] + [(case, "bfloat16") for case in NARROW]


def report(source: Source, bundle: Path, batch: int = 2) -> Report:
    """By the source as it is: a file of settings and all."""
    module = find_family(source)
    return validate_bundle(bundle, source, module, Execution(), upstream=True, task=Task(batch))


@pytest.mark.parametrize(("case", "dtype"), GRID, ids=str)
def test_every_configuration(library: Library, case: ModelCase, dtype: BundleDtype) -> None:
    found = report(library.source(case), library.bundle(case, dtype=dtype))
    assert found.verdict == "validated"
    assert "mLSTM parallel" in found.reference
    assert {result.name.partition(" ")[0] for result in found.results} >= {
        library.checkpoint(case).spec.outputs[0].name
    }


@pytest.mark.parametrize("case", [ONE, TWO], ids=str)
@pytest.mark.parametrize("native", [True, False])
def test_every_batch_and_no_state(library: Library, case: ModelCase, native: bool) -> None:
    """An image has its logits in whatever company; a call leaves nothing behind."""
    session = xe.open(library.bundle(case), threads=1, native=native)
    shape = library.checkpoint(case).spec.inputs[0].shape[1:]
    images = np.random.default_rng(0).standard_normal((5, *shape), np.float32)
    outputs, states = session.run({"pixel_values": images})
    assert not states
    for rows in (slice(0, 1), slice(1, 3), slice(0, 5)):
        alone = session.run({"pixel_values": images[rows]})[0]["logits"]
        np.testing.assert_allclose(alone, outputs["logits"][rows], rtol=0, atol=2e-5)


def test_the_size_of_the_images_is_the_bundles(library: Library, tmp_path: Path) -> None:
    """validate asks for the size that the bundle was exported for."""
    source = library.source(TWO)
    bundle = pipeline.export(source.path, tmp_path / "out", resolution="24x8")
    assert bundle.manifest.inputs[0].shape == ("batch", 3, 24, 8)
    assert pipeline.validate(bundle, source.path).verdict == "validated"


def _planted(library: Library, case: ModelCase, folder: Path, edit: Callable[..., None]) -> Path:
    bundle = folder / "bundle"
    shutil.copytree(library.bundle(case), bundle)
    path = str(bundle / "model.onnx")
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data")
    return bundle


def _change(model: onnx.ModelProto, name: str, change: Callable[..., np.ndarray]) -> None:
    (tensor,) = [i for i in model.graph.initializer if i.name == name]
    changed = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(changed, name))


def _gates_swapped(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "XlstmMLSTM":
            node.input[3], node.input[4] = node.input[4], node.input[3]


def _convolution_transposed(model: onnx.ModelProto) -> None:
    """Rows for columns, in one block."""
    _change(model, "/layers.1/mlstm/conv.weight", lambda w: w.swapaxes(2, 3))


def _last_token_twice(model: onnx.ModelProto) -> None:
    (pool,) = [node for node in model.graph.node if node.name.endswith("/ends")]
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, -1]), "wrong"))
    pool.input[1] = "wrong"


def _positions_transposed(model: onnx.ModelProto) -> None:
    """Column by column, where patches are row by row."""
    _change(
        model, "positions.weight", lambda w: w.reshape(5, 3, -1).swapaxes(0, 1).reshape(w.shape)
    )


@pytest.mark.parametrize(
    ("case", "edit"),
    [
        (ONE, _gates_swapped), (TWO, _gates_swapped), (TWO, _convolution_transposed),
        (ONE, _last_token_twice), (TWO, _last_token_twice), (ONE, _positions_transposed),
    ],
    ids=lambda x: x.id if isinstance(x, ModelCase) else x.__name__.strip("_"),
)  # fmt: skip
def test_a_fault_in_the_graph_fails(
    library: Library, tmp_path: Path, case: ModelCase, edit: Callable[..., None]
) -> None:
    found = report(library.source(case), _planted(library, case, tmp_path, edit))
    assert found.verdict == "failed"


def _no_flip(blocks: Blocks) -> tuple[list[tuple[str, Layer]], dict[str, Weight]]:
    """The second block reads the patches from their beginning."""
    layers, weights = read_blocks(blocks)
    path, block = layers[1]
    assert isinstance(block, Residual)
    assert isinstance(block.inner, Flipped)
    layers[1] = (path, replace(block, inner=block.inner.inner))
    return layers, weights


READER_FAULTS: dict[str, tuple[object, str, object]] = {
    "one direction": (vil, "read_blocks", _no_flip),
    "constants of the last norms": (vil, "_EPS", {1: (1e-2, 1e-6), 2: (1e-6, 1e-2)}),
    "norms without their one": (LayerTensors, "take_norm", LayerTensors.take),
}


@pytest.mark.parametrize("fault", READER_FAULTS)
@pytest.mark.parametrize("case", [ONE, TWO], ids=str)
def test_a_fault_in_the_reader_fails(
    library: Library, tmp_path: Path, case: ModelCase, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundle and our own references share it; the module in float64 does not."""
    source, wrong = library.source(case), READER_FAULTS[fault]
    monkeypatch.setattr(*wrong)
    pipeline.export_source(source, tmp_path / "out", LoweringOptions())
    assert report(source, tmp_path / "out").verdict == "failed"
