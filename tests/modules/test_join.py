"""Products of one value become one product; what must stay alone does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from xlstm import mLSTMLayer, mLSTMLayerConfig

import xlstm_export as xe
from tests.modules.networks import CHANNELS, SIZE, made, series


class Shared(nn.Module):
    """Three projections of one input, one of them given out, one that shares its matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(CHANNELS, SIZE), nn.Linear(CHANNELS, SIZE, bias=False)
        self.c = nn.Linear(CHANNELS, SIZE, bias=False)
        self.mixer = mLSTMLayer(
            mLSTMLayerConfig(embedding_dim=SIZE, context_length=64, num_heads=2)
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        given = self.c(x)
        return {"y": self.mixer(self.a(x) * self.b(x)), "given": given, "last": self.c(x[:, -1:])}


def test_products_are_joined(tmp_path: Path) -> None:
    network = made(Shared)
    bundle = xe.export_module(network, series(), tmp_path / "out")
    graph = onnx.load(str(bundle.model_path)).graph
    weights = {w.name: list(w.dims) for w in graph.initializer}
    products = {n.name: weights[n.input[1]] for n in graph.node if n.op_type == "MatMul"}
    assert products["/a/MatMul_joined"] == [CHANNELS, 2 * SIZE]
    assert [name for name in products if name.startswith("/mixer/mlstm_cell")] == [
        "/mixer/mlstm_cell/igate/MatMul_joined"
    ]
    assert products["/c/MatMul"] == [CHANNELS, SIZE]
    assert not any("b.weight" in name for name in weights)
    found, _ = xe.open(bundle, threads=1).run({"x": series(3, 9).numpy()})
    with torch.no_grad():
        for name, wanted in network(series(3, 9)).items():
            np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5)
