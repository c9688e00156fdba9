"""A network's recurrences are plugins of a TensorRT-RTX engine, which is built without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from torch import nn

import xlstm_export as xe
from tests.modules.networks import Bottom, Classifier, Detector, Rounding, made, series
from tests.plugins.trt_library import missing_for_engines, plugin_library
from xlstm_export.native import FOLDER_VARIABLE
from xlstm_export.ops.catalog import CATALOG, DOMAIN


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_every_recurrence_is_a_plugin(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := missing_for_engines():
        pytest.skip(reason)
    monkeypatch.setenv(FOLDER_VARIABLE, str(plugin_library().parent))
    out = tmp_path / "out"
    bundle = xe.export_module(made(Detector), series(), out, states=True, dtype=dtype)
    built = xe.build(bundle, backend="tensorrt_rtx", compute_capabilities=["8.9"])
    found = {plugin.node: plugin.op_type for plugin in built.record.plugins}
    assert set(found) == {
        "/mixer/conv1d/XlstmCausalConv1d", "/mixer/mlstm_cell/XlstmMLSTM",
        "/memory/conv1d/XlstmCausalConv1d", "/memory/slstm_cell/XlstmSLSTM",
    }  # fmt: skip
    assert set(found.values()) == set(CATALOG)


@pytest.mark.parametrize("kind", [Classifier, Bottom, Rounding])
def test_engines_of_other_networks(
    tmp_path: Path, kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolutions around a stack, a mean over time, a recurrence that rounds."""
    if reason := missing_for_engines():
        pytest.skip(reason)
    monkeypatch.setenv(FOLDER_VARIABLE, str(plugin_library().parent))
    bundle = xe.export_module(made(kind), series(), tmp_path / "out")
    shapes: dict[str, Any] = {
        f"{name}_shapes": {"x": (rows, steps, 5)}
        for name, rows, steps in (("min", 1, 4), ("opt", 2, 20), ("max", 4, 64))
    }
    built = xe.build(bundle, backend="tensorrt_rtx", compute_capabilities=["8.9"], **shapes)
    nodes = onnx.load(str(bundle.model_path)).graph.node
    recurrences = {node.name for node in nodes if node.domain == DOMAIN}
    assert recurrences == {plugin.node for plugin in built.record.plugins}
