"""``validate`` finds what is wrong: faults planted in a bundle's graph, or in a reader.

Each fault is one a plausible exporter could make; the twin without it is validated.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from xlstm_export_cli.main import main

from tests.model_cases import BY_ID, Library, ModelCase
from xlstm_export import pipeline
from xlstm_export.checkpoint.tensor_table import LayerTensors
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.report.markdown import to_markdown
from xlstm_export.validation.result import Report

STACK, LARGE = BY_ID["stack-mixed"], BY_ID["large-single"]
Edit = Callable[[onnx.ModelProto], None]


def _planted(library: Library, case: ModelCase, folder: Path, edit: Edit) -> Path:
    """A copy of the bundle of ``case`` whose model.onnx went through ``edit``."""
    bundle = folder / "bundle"
    shutil.copytree(library.bundle(case), bundle)
    path = str(bundle / "model.onnx")
    model = onnx.load(path, load_external_data=False)
    edit(model)
    onnx.save(model, path)
    return bundle


@pytest.fixture(scope="module")
def verdict_of_twin(library: Library) -> Callable[[ModelCase], str]:
    """The verdict on a case's bundle as export makes it, found once."""
    return cache(lambda case: _verdict(library, case, library.bundle(case)).verdict)


def _verdict(library: Library, case: ModelCase, bundle: Path) -> Report:
    return pipeline.validate(bundle, library.source(case).path)


def _nodes(model: onnx.ModelProto, op_type: str) -> list[onnx.NodeProto]:
    found = [node for node in model.graph.node if node.op_type == op_type]
    assert found, op_type
    return found


def _set_attribute(node: onnx.NodeProto, name: str, value: float) -> None:
    (attribute,) = [a for a in node.attribute if a.name == name]
    attribute.CopyFrom(onnx.helper.make_attribute(name, value))


def _swap_slstm_gates(model: onnx.ModelProto) -> None:
    """Slots i and f exchanged: the weights in the order of the module names."""
    for node in _nodes(model, "XlstmSLSTM"):
        (producer,) = [n for n in model.graph.node if node.input[0] in n.output]
        order = numpy_helper.from_array(np.array([1, 0, 2, 3]), f"{node.name}/order")
        model.graph.initializer.append(order)
        swap = onnx.helper.make_node(
            "Gather", [producer.output[0], order.name], [f"{node.name}/swapped"], axis=2
        )
        model.graph.node.insert(list(model.graph.node).index(producer) + 1, swap)
        node.input[0] = swap.output[0]


def _eps_inside_the_max(model: onnx.ModelProto) -> None:
    """max(|q n| + eps, exp(-m)) instead of max(|q n|, exp(-m)) + eps, in both branches."""
    (body,) = [f for f in model.functions if f.name == "XlstmMLSTM"]
    moved = []
    for graph in _graphs(body.node):
        for index, node in enumerate(graph):
            if node.op_type == "Add" and node.input[1] in ("eps_1", "eps_column"):
                larger = next(n for n in graph[:index] if n.output[0] == node.input[0])
                assert larger.op_type == "Max"
                first, second = larger.input
                eps = node.input[1]
                result, between = node.output[0], larger.output[0]
                larger.CopyFrom(onnx.helper.make_node("Add", [first, eps], [between]))
                node.CopyFrom(onnx.helper.make_node("Max", [between, second], [result]))
                moved.append(eps)
    assert sorted(moved) == ["eps_1", "eps_column"]


def _graphs(nodes: object) -> list[list[onnx.NodeProto]]:
    """Node lists of a function and of the branches within it."""
    own: list[onnx.NodeProto] = list(nodes)  # type: ignore[call-overload]
    found = [own]
    for node in own:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += _graphs(attribute.g.node)
    return found


def _wrong_scale_side(model: onnx.ModelProto) -> None:
    for node in _nodes(model, "XlstmMLSTM"):
        (attribute,) = [a for a in node.attribute if a.name == "scale_side"]
        attribute.i = 1 - attribute.i


def _state_not_carried(model: onnx.ModelProto) -> None:
    """One present output hands back what came in."""
    (node, *_) = _nodes(model, "XlstmMLSTM")
    past, present = node.input[6], node.output[2]
    node.output[2] = f"{present}/lost"
    model.graph.node.append(onnx.helper.make_node("Identity", [past], [present]))


def _another_soft_cap(model: onnx.ModelProto) -> None:
    for node in _nodes(model, "XlstmMLSTM"):
        _set_attribute(node, "gate_soft_cap", 14.0)


def _other_convolution_bias(model: onnx.ModelProto) -> None:
    """The convolution forgets its bias."""
    for node in _nodes(model, "XlstmCausalConv1d"):
        (bias,) = [i for i in model.graph.initializer if i.name == node.input[2]]
        zeros = np.zeros(tuple(bias.dims), np.float32)
        bias.CopyFrom(numpy_helper.from_array(zeros, bias.name))


def _transposed_projection(model: onnx.ModelProto) -> None:
    """One square projection is multiplied from the other side."""
    for node in _nodes(model, "MatMul"):
        if node.name == "/layers.1/mlstm/out":
            turned = onnx.helper.make_node(
                "Transpose", [node.input[1]], [f"{node.name}/turned"], perm=[1, 0]
            )
            model.graph.node.insert(list(model.graph.node).index(node), turned)
            node.input[1] = turned.output[0]


@pytest.mark.parametrize(
    ("case", "edit", "layer", "cause"),
    [
        (STACK, _swap_slstm_gates, "layers.1.slstm", "swapped gates: input gate and forget gate"),
        (STACK, _wrong_scale_side, "layers.0.mlstm", "1/sqrt(K) is on the wrong side"),
        (LARGE, _wrong_scale_side, "layers.0.mlstm", "1/sqrt(K) is on the wrong side"),
        (STACK, _state_not_carried, "layers.0.mlstm", "state 0.mlstm.n is not carried"),
        (LARGE, _state_not_carried, "layers.0.mlstm", "state 0.mlstm.n is not carried"),
        (LARGE, _another_soft_cap, "layers.0.mlstm", "gate_soft_cap of XlstmMLSTM is 14 in"),
        (STACK, _other_convolution_bias, "layers.0.mlstm", "conv.bias is all zeros"),
        (LARGE, _transposed_projection, "layers.1.mlstm", "/layers.1/mlstm/out"),
    ],
    ids=lambda x: x.id if isinstance(x, ModelCase) else getattr(x, "__name__", "").strip("_"),
)
def test_a_fault_in_the_graph_fails_and_is_found(
    library: Library,
    verdict_of_twin: Callable[[ModelCase], str],
    tmp_path: Path,
    case: ModelCase,
    edit: Edit,
    layer: str,
    cause: str,
) -> None:
    assert verdict_of_twin(case) == "validated"
    report = _verdict(library, case, _planted(library, case, tmp_path, edit))
    assert report.verdict == "failed"
    assert not report.ok
    assert report.location is not None
    assert report.location.layer == layer
    assert cause in report.location.cause
    assert report.location.error > report.location.allowed


def test_eps_inside_the_max_fails(library: Library, tmp_path: Path) -> None:
    """With a large eps, as a checkpoint may have, the place of eps shows."""
    case = BY_ID["large-other-eps"]
    assert _verdict(library, case, library.bundle(case)).verdict == "validated"
    bundle = _planted(library, case, tmp_path, _eps_inside_the_max)
    assert _verdict(library, case, bundle).verdict == "failed"


def test_eps_inside_the_max_fails_with_the_usual_eps(library: Library, tmp_path: Path) -> None:
    """eps = 1e-6 shows where exp(-m) is small: the extremes of the gates are in the rollout."""
    bundle = _planted(library, STACK, tmp_path, _eps_inside_the_max)
    report = _verdict(library, STACK, bundle)
    assert report.verdict == "failed"
    assert report.location is not None
    assert report.location.operator == "XlstmMLSTM"
    assert "adds eps inside the max" in report.location.cause


def test_a_stale_weight_and_a_norm_without_its_one_are_found(
    library: Library, tmp_path: Path
) -> None:
    """Weights lie outside the graph; the first fault is named, and the second beside it."""
    bundle = tmp_path / "bundle"
    shutil.copytree(library.bundle(STACK), bundle)
    model = ir.load(bundle / "model.onnx")
    weights = model.graph.initializers
    stale, norm = "/layers.0/mlstm/out.weight", "/layers.1/ffn_norm.weight"
    random = np.random.default_rng(0)
    matrix = weights[stale].const_value.numpy()
    noise = random.standard_normal(matrix.shape).astype(np.float32)
    weights[stale].const_value = ir.tensor(matrix + 0.05 * noise)
    weights[norm].const_value = ir.tensor(weights[norm].const_value.numpy() - np.float32(1))
    ir.save(model, bundle / "model.onnx")
    report = _verdict(library, STACK, bundle)
    assert report.location is not None
    assert report.location.layer == "layers.0.mlstm"
    assert f"{stale} is stale" in report.location.cause
    assert report.location.others == ("layers.1.ffn_norm: the layer's result",)
    assert "goes wrong in layers.0.mlstm" in report.to_html()


@pytest.fixture
def _reader_without_one_plus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LayerTensors, "take_norm", LayerTensors.take)


@pytest.mark.usefixtures("_reader_without_one_plus")
def test_a_norm_without_its_one_fails(library: Library, tmp_path: Path) -> None:
    pipeline.export_source(library.source(STACK), tmp_path / "bundle", LoweringOptions())
    report = _verdict(library, STACK, tmp_path / "bundle")
    assert report.verdict == "failed"
    assert report.location is not None
    assert report.location.layer == "layers.0.mlstm"
    assert "without their +1" in report.location.cause
    assert "reader" in report.location.operator


@pytest.mark.usefixtures("_reader_without_one_plus")
def test_a_reader_fault_cannot_be_seen_without_upstream(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundle and reference share the reader: the verdict must not be more than it is."""
    pipeline.export_source(library.source(STACK), tmp_path / "bundle", LoweringOptions())
    for name in [m for m in sys.modules if m.partition(".")[0] == "xlstm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "xlstm", None)
    report = _verdict(library, STACK, tmp_path / "bundle")
    assert report.verdict == "self-consistent"
    assert "cannot be seen" in " ".join(to_markdown(report).split())


def test_exit_code_is_the_verdict(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = _planted(library, LARGE, tmp_path, _wrong_scale_side)
    source = str(library.source(LARGE).path)
    for bundle, code in ((library.bundle(LARGE), 0), (broken, 1)):
        argv = ["xlstm-export", "validate", str(bundle), "--reference", source]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as stop:
            main()
        assert (stop.value.code or 0) == code
