"""TiRex-2 bundles against upstream's ``predict`` in float64, by the rule, and faults in them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.families.test_tirex2 import CONFIGURATIONS
from tests.families.tirex2_checkpoints import write_tirex2
from xlstm_export import pipeline
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.validation.result import Report

GRID = [(name, dtype) for name in CONFIGURATIONS for dtype in ("fp32", "fp16", "bf16")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Path]]:
    """Source and bundle of a configuration, made once."""
    folder = tmp_path_factory.mktemp("variates")

    def make(name: str, dtype: str) -> tuple[Path, Path]:
        source, bundle = folder / name, folder / f"{name}-{dtype}"
        if not source.exists():
            write_tirex2(source, **CONFIGURATIONS[name])
        if not bundle.exists():
            pipeline.export(source, bundle, dtype=dtype)
        return source, bundle

    return make


Exported = Callable[[str, str], tuple[Path, Path]]


@pytest.mark.parametrize(("name", "dtype"), GRID)
def test_a_bundle_is_upstreams_model(exported: Exported, name: str, dtype: str) -> None:
    source, bundle = exported(name, dtype)
    report = pipeline.validate(bundle, source)
    assert report.verdict == "validated", report
    assert "TiRex2.predict" in report.reference


@pytest.mark.parametrize("name", ["plain", "odd"])
def test_bodies_alone(exported: Exported, name: str) -> None:
    source, bundle = exported(name, "fp32")
    report = pipeline.validate(bundle, source, native=False)
    assert report.verdict == "validated", report


def test_a_batch_is_its_entries_one_by_one(exported: Exported) -> None:
    """Entries do not see each other, nor do groups of one entry."""
    _, bundle = exported("plain", "fp32")
    session = OrtSession(bundle)
    random = np.random.default_rng(0)
    shapes = {"context": (4, 2, 30), "past_covariates": (4, 1, 30), "future_covariates": (4, 1, 40)}
    feeds: dict[str, Any] = {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    feeds["groups"] = np.array([[0, 0, 0, 0], [0, 1, 0, 1], [2, 2, 3, 3], [0, 1, 2, 3]])
    together = session.run(feeds)[0]["quantiles"]
    assert together.shape == (4, 2, 10, 9)
    for row in range(4):
        alone = session.run({n: x[row : row + 1] for n, x in feeds.items()})[0]["quantiles"]
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-4, atol=1e-4)
    univariate = {
        "context": feeds["context"][3:, :1],
        "past_covariates": np.zeros((1, 0, 30), np.float32),
        "future_covariates": np.zeros((1, 0, 40), np.float32),
        "groups": np.zeros((1, 1), np.int64),
    }
    np.testing.assert_allclose(
        session.run(univariate)[0]["quantiles"][0, 0], together[3, 0], rtol=1e-4, atol=1e-4
    )


Edit = Callable[[onnx.ModelProto], None]


def _named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (node,) = [node for node in model.graph.node if node.name == name]
    return node


def _replace(node: onnx.NodeProto, op_type: str, *inputs: str) -> None:
    node.CopyFrom(helper.make_node(op_type, inputs, node.output, node.name))


def _one_direction_not_flipped(model: onnx.ModelProto) -> None:
    node = _named(model, "/layers.0/mlstm/flip_1")
    _replace(node, "Identity", node.input[0])


def _all_see_all(model: onnx.ModelProto) -> None:
    node = _named(model, "/layers.0/across/attention/seen")
    _replace(node, "Identity", node.input[1])


def _those_alone_are_mixed(model: onnx.ModelProto) -> None:
    node = _named(model, "/layers.0/across/mixed_or_alone")
    _replace(node, "Identity", node.input[1])


def _no_floor_of_the_scale(model: onnx.ModelProto) -> None:
    node = _named(model, "/scaler/floor")
    _replace(node, "Identity", node.input[0])


def _gates_swapped(model: onnx.ModelProto) -> None:
    (node,) = [node for node in model.graph.node if node.op_type == "XlstmSLSTM"]
    (producer,) = [n for n in model.graph.node if node.input[0] in n.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 0, 2, 3]), "order"))
    swap = helper.make_node("Gather", [producer.output[0], "order"], ["swapped"], axis=2)
    model.graph.node.insert(list(model.graph.node).index(producer) + 1, swap)
    node.input[0] = "swapped"


def _trends_left_as_they_are(model: onnx.ModelProto) -> None:
    node = _named(model, "/trend/steps_or_values")
    _replace(node, "Identity", node.input[2])


def _bands_not_widened(model: onnx.ModelProto) -> None:
    (node,) = [i for i in model.graph.initializer if i.name == "/bands/band"]
    node.CopyFrom(numpy_helper.from_array(np.ones(tuple(node.dims), np.float32), node.name))


def _quantiles_in_reverse(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.arange(9)[::-1].copy(), "reverse"))
    (node,) = [n for n in model.graph.node if "quantiles" in n.output]
    node.output[0] = "in_order"
    model.graph.node.append(
        helper.make_node("Gather", ["in_order", "reverse"], ["quantiles"], axis=3)
    )


def _quantiles_of_the_negative_not_opposite(model: onnx.ModelProto) -> None:
    node = _named(model, "/mirrored/opposite")
    _replace(node, "Identity", node.input[0])


def _covariates_not_negated(model: onnx.ModelProto) -> None:
    node = _named(model, "/mirrored/future_covariates")
    node.input[1] = node.input[0]


def _past_not_negated(model: onnx.ModelProto) -> None:
    node = _named(model, "/mirrored/past_covariates")
    node.input[1] = node.input[0]


FAULTS: tuple[Edit, ...] = (
    _one_direction_not_flipped, _all_see_all, _those_alone_are_mixed, _no_floor_of_the_scale,
    _gates_swapped, _trends_left_as_they_are, _bands_not_widened, _quantiles_in_reverse,
)  # fmt: skip
MIRROR_FAULTS: tuple[Edit, ...] = (
    _quantiles_of_the_negative_not_opposite, _covariates_not_negated, _past_not_negated,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "edit"),
    [*(("plain", edit) for edit in FAULTS), *(("mirrored", edit) for edit in MIRROR_FAULTS)],
    ids=lambda value: value if isinstance(value, str) else value.__name__.strip("_"),
)
def test_a_planted_fault_is_found(
    exported: Exported, tmp_path: Path, name: str, edit: Edit
) -> None:
    source, whole = exported(name, "fp32")
    bundle = shutil.copytree(whole, tmp_path / "bundle")
    model = onnx.load(str(bundle / "model.onnx"), load_external_data=False)
    edit(model)
    onnx.save(model, str(bundle / "model.onnx"))
    report: Report = pipeline.validate(bundle, source)
    assert report.verdict == "failed"
    assert not next(r for r in report.results if r.name == "quantiles").judgement.ok
