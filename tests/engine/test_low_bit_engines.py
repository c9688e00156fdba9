"""TensorRT-RTX engines of weights in few bits: built where ``runs_on`` says so, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

import xlstm_export as xe
from tests.cli.terminal import assert_short_error, run_cli, succeed_json
from tests.model_cases import BY_ID, Library
from xlstm_export.bundle.low_bit import LowBit
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.ops.catalog import DOMAIN

pytestmark = pytest.mark.usefixtures("builder")
RTX = ("--backend", "tensorrt_rtx", "--compute-capability", "8.9")
READ: list[tuple[str, str, LowBit]] = [
    ("hf-plain", "float16", LowBit(4, 32)),
    ("hf-plain", "bfloat16", LowBit(8, 128)),
    ("stack-mixed", "float32", LowBit(4, 16)),
    ("stack-tied", "float16", LowBit(4, 16, wide=("embedding.weight",))),
    ("tirex-small", "float32", LowBit(8, 32)),
]


def made(library: Library, case: str, dtype: Any, low_bit: LowBit) -> Path:
    options = LoweringOptions(dtype, opset=21, low_bit=low_bit)
    return library.bundle(BY_ID[case], options)


@pytest.mark.parametrize(("case", "dtype", "low_bit"), READ, ids=lambda v: str(v)[:24])
def test_symmetric_blocks_are_read(
    library: Library, case: str, dtype: str, low_bit: LowBit
) -> None:
    """Tables included: a lookup is of rows in 8 bits."""
    bundle = made(library, case, dtype, low_bit)
    assert "tensorrt" in xe.Bundle.open(bundle).manifest.runs_on
    graph = onnx.load(str(bundle / "model.onnx"), load_external_data=False).graph
    found = succeed_json("build", bundle, *RTX)
    assert [plugin["node"] for plugin in found["plugins"]] == [
        node.name for node in graph.node if node.domain == DOMAIN
    ]
    assert {t.data_type for t in graph.initializer} & {onnx.TensorProto.INT4, onnx.TensorProto.INT8}


@pytest.mark.parametrize(
    ("case", "low_bit"),
    [("hf-plain", LowBit(4, 32, symmetric=False)), ("hf-plain", LowBit(8, 32, symmetric=False)),
     ("hf-plain", LowBit(4, 32, matmul_nbits=True)), ("stack-tied", LowBit(8, 16))],
    ids=lambda v: str(getattr(v, "words", v)),
)  # fmt: skip
def test_others_are_refused(library: Library, case: str, low_bit: LowBit) -> None:
    """Zero points, ONNX Runtime's own operator, a table that is a matrix as well."""
    bundle = made(library, case, "float32", low_bit)
    assert "tensorrt" not in xe.Bundle.open(bundle).manifest.runs_on
    assert_short_error(run_cli("build", bundle, *RTX), str(bundle))
