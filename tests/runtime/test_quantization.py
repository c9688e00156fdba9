"""ONNX Runtime's static quantisation takes a bundle: it runs the graph without optimisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from tests.model_cases import ONE_PER_FAMILY, VOCABULARY, Library, ModelCase
from xlstm_export.ops.catalog import DOMAIN
from xlstm_export.runtime.ort import OrtSession

BATCH = 3
Feeds = dict[str, npt.NDArray[np.generic]]


class Prompts(CalibrationDataReader):
    """Random prompts of ``BATCH`` rows and several lengths, from zero states."""

    def __init__(self, bundle: Path) -> None:
        states = OrtSession(bundle).manifest.states
        zeros = {s.input: np.zeros((BATCH, *s.shape[1:]), np.float32) for s in states}
        random = np.random.default_rng(0)
        self.all: list[Feeds] = [
            {"input_ids": random.integers(0, VOCABULARY, (BATCH, steps)), **zeros}
            for steps in (1, 7, 70)
        ]
        self._left = iter(self.all)

    def get_next(self) -> Feeds | None:
        return next(self._left, None)


@pytest.mark.parametrize("case", ONE_PER_FAMILY, ids=str)
def test_static_quantisation_keeps_the_operators(
    library: Library, tmp_path: Path, case: ModelCase
) -> None:
    bundle, quantized = library.bundle(case), tmp_path / "quantized.onnx"
    prompts = Prompts(bundle)
    quantize_static(bundle / "model.onnx", quantized, prompts)
    nodes = onnx.load(bundle / "model.onnx", load_external_data=False).graph.node
    found = onnx.load(quantized).graph.node
    assert "QuantizeLinear" in {node.op_type for node in found}
    ours = [node.op_type for node in nodes if node.domain == DOMAIN]
    assert sorted(node.op_type for node in found if node.domain == DOMAIN) == sorted(ours)
    session = ort.InferenceSession(quantized, providers=["CPUExecutionProvider"])
    before = ort.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    for feeds in prompts.all:
        (exact,), (got,) = (s.run(["logits"], feeds) for s in (before, session))
        for row in range(BATCH):  # nearer to its own than to any other row's
            distance = np.abs(exact - got[row]).mean((1, 2))
            assert distance.argmin() == row
