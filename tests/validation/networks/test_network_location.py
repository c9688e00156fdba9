"""A bundle of a network that is wrong: where, and why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import xlstm_export as xe
from tests.modules.networks import CHANNELS, SIZE, Classifier, Detector, made, series
from xlstm_export.modules import rules
from xlstm_export.modules.cells import MLSTMCell

Edit = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    network = made(Detector)
    out = tmp_path_factory.mktemp("detector") / "out"
    return network, xe.export_module(network, series(), out, states=True).path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    network = made(Classifier)
    out = tmp_path_factory.mktemp("classifier") / "out"
    return network, xe.export_module(network, series(), out).path


def _node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (node,) = [node for node in model.graph.node if node.name == name]
    return node


def _wrong_scale_side(model: onnx.ModelProto) -> None:
    node = _node(model, "/mixer/mlstm_cell/XlstmMLSTM")
    (attribute,) = [a for a in node.attribute if a.name == "scale_side"]
    attribute.i = 0


def _state_not_carried(model: onnx.ModelProto) -> None:
    node = _node(model, "/memory/slstm_cell/XlstmSLSTM")
    present = node.output[2]
    node.output[2] = f"{present}/lost"
    model.graph.node.append(onnx.helper.make_node("Identity", [node.input[4]], [present]))


def _swapped_slots(model: onnx.ModelProto) -> None:
    node = _node(model, "/memory/slstm_cell/XlstmSLSTM")
    order = numpy_helper.from_array(np.array([1, 0, 2, 3]), "order")
    model.graph.initializer.append(order)
    swap = onnx.helper.make_node("Gather", [node.input[0], "order"], ["swapped"], axis=2)
    model.graph.node.insert(list(model.graph.node).index(node), swap)
    node.input[0] = "swapped"


def _another_kernel(model: onnx.ModelProto) -> None:
    """The head, whose weights are small enough to lie in the graph file."""
    (name,) = [i for i in _node(model, "/score/Gemm").input if i.endswith("bias")] if any(
        n.name == "/score/Gemm" for n in model.graph.node
    ) else ["score.bias"]  # fmt: skip
    (bias,) = [w for w in model.graph.initializer if w.name == name]
    bias.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(bias), name))


FAULTS: dict[str, tuple[Edit, str, str, str]] = {
    "scale": (
        _wrong_scale_side, "mixer.mlstm_cell", "XlstmMLSTM", "scale 1/sqrt(K) is on the wrong side",
    ),
    "state": (
        _state_not_carried, "memory.slstm_cell", "Identity",
        "state memory.slstm_cell.c is not carried",
    ),
    "slots": (_swapped_slots, "memory.slstm_cell", "Gather", "swapped gates"),
    "head": (_another_kernel, "the end of the network", "Add", "score.bias is 2 times"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_planted_fault_is_located(detector: tuple[Any, Path], tmp_path: Path, case: str) -> None:
    edit, layer, operator, cause = FAULTS[case]
    network, path = detector
    shutil.copytree(path, tmp_path / "out")
    model = onnx.load(str(tmp_path / "out/model.onnx"), load_external_data=False)
    edit(model)
    onnx.save(model, str(tmp_path / "out/model.onnx"))
    report = xe.validate_module(tmp_path / "out", network, series(), threads=1)
    assert report.verdict == "failed"
    assert report.location is not None, report.notes
    assert report.location.layer == layer, report.location
    assert operator in report.location.operator, report.location
    assert cause in report.location.cause, report.location
    assert "checkpoint" not in report.location.cause


def test_weights_that_changed_since_are_named(classifier: tuple[Any, Path]) -> None:
    """Of a network without states; the first part that is wrong is the gates' of one cell."""
    other = made(Classifier)
    with torch.no_grad():
        other.get_parameter("stack.blocks.0.xlstm.mlstm_cell.fgate.bias").add_(0.3)
    report = xe.validate_module(classifier[1], other, series(), threads=1)
    assert report.location is not None, report.notes
    assert report.location.layer == "stack.blocks.0.xlstm.mlstm_cell"
    assert report.location.tensor.endswith("XlstmMLSTM.f")
    assert "stack.blocks.0.xlstm.mlstm_cell.fgate.bias" in report.location.cause


class Sharper(nn.Module):
    """A cell of one's own that is taken for upstream's."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.cell(2 * q, k, v)


class Mistaken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, inner = nn.Linear(CHANNELS, SIZE), Detector().mixer.mlstm_cell
        self.wide = nn.Linear(SIZE, inner.config.embedding_dim)
        self.sharper = Sharper(inner)

    def forward(self, x: Tensor) -> Tensor:
        h = self.wide(self.up(x))
        return self.sharper(h, h, h)


def test_a_wrong_recognition_is_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is right by our reference, and not the network's."""

    def rule(sharper: Any, path: str, ledger: Any) -> nn.Module:
        return MLSTMCell(sharper.cell, sharper.cell.config.num_heads, path, ledger)

    monkeypatch.setitem(rules.RULES, f"{Sharper.__module__}.Sharper", (rule, True))
    network = made(Mistaken)
    bundle = xe.export_module(network, series(), tmp_path / "out")
    report = xe.validate_module(bundle, network, series(), threads=1)
    assert report.verdict == "failed"
    assert report.location is not None, report.notes
    assert (report.location.layer, report.location.operator) == ("sharper", "Sharper")
    assert "the network does not" in report.location.cause
