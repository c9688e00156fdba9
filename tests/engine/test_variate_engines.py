"""TensorRT-RTX engines of a forecaster of several series."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.cli.terminal import assert_short_error, run_cli, succeed, succeed_json
from tests.families.tirex2_checkpoints import write_tirex2
from xlstm_export.ops.catalog import DOMAIN

pytestmark = pytest.mark.usefixtures("builder")
RTX = ("--backend", "tensorrt_rtx", "--compute-capability", "8.9")
SHAPES = (
    "--min-shapes", "context:1x1x1 past_covariates:1x0x1 future_covariates:1x0x2",
    "--opt-shapes", "context:1x1x48 past_covariates:1x1x48 future_covariates:1x1x60",
    "--max-shapes", "context:4x3x96 past_covariates:4x2x96 future_covariates:4x2x120",
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_every_recurrence_is_a_plugin(tmp_path: Path, dtype: str) -> None:
    """The groups follow from the variates of the other inputs, of which there may be none."""
    bundle = tmp_path / "bundle"
    succeed("export", write_tirex2(tmp_path / "source"), "-o", bundle, "--dtype", dtype)
    made = succeed_json("build", bundle, *RTX, *SHAPES)
    graph = onnx.load(str(bundle / "model.onnx"), load_external_data=False).graph
    wanted = [(node.name, node.op_type) for node in graph.node if node.domain == DOMAIN]
    assert [(p["node"], p["op_type"]) for p in made["plugins"]] == wanted
    assert {op for _, op in wanted} == {"XlstmMLSTM", "XlstmSLSTM"}
    assert made["profiles"][0]["groups"] == {"min": [1, 1], "opt": [1, 3], "max": [4, 7]}


def test_shapes_have_no_default(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    succeed("export", write_tirex2(tmp_path / "source"), "-o", bundle)
    outcome = run_cli("build", bundle, *RTX)
    assert_short_error(outcome, "context: no default for targets", "--min-shapes")
