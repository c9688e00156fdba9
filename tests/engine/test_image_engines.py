"""Engines of Vision-LSTMs: one profile, over the batch alone, and every recurrence a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.cli.terminal import succeed, succeed_json
from tests.engine.conftest import DTYPES
from tests.families.vil_checkpoints import make_vil
from xlstm_export.ops.catalog import DOMAIN

pytestmark = pytest.mark.usefixtures("builder")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("version", [1, 2])
def test_every_recurrence_is_a_plugin(tmp_path: Path, version: Any, dtype: str) -> None:
    source = make_vil(tmp_path, version=version).path
    bundle = tmp_path / "out"
    succeed("export", source, "-o", bundle, "--dtype", dtype)
    made = succeed_json("build", bundle, "--backend", "tensorrt_rtx", "--max-batch-size", "5")
    assert made["profiles"] == [
        {"pixel_values": {"min": [1, 3, 12, 20], "opt": [5, 3, 12, 20], "max": [5, 3, 12, 20]}}
    ]
    graph = onnx.load(str(bundle / "model.onnx"), load_external_data=False).graph
    recurrences = [(node.name, node.op_type) for node in graph.node if node.domain == DOMAIN]
    assert [(plugin["node"], plugin["op_type"]) for plugin in made["plugins"]] == recurrences
    assert len(recurrences) == (8 if version == 1 else 4)
