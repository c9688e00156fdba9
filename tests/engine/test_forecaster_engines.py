"""Engines of TiRex: of the calls that begin, and of those that go on from a state."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from tests.cli.terminal import succeed, succeed_json
from tests.engine.conftest import DTYPES
from tests.families.tirex_checkpoints import SMALL
from xlstm_export.engine.record import read_record
from xlstm_export.ops.catalog import DOMAIN

pytestmark = pytest.mark.usefixtures("builder")
RTX = ("--backend", "tensorrt_rtx", "--compute-capability", "8.9", "--max-batch-size", "4")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_recurrence_of_both_graphs_is_a_plugin(
    bundles: Path, tmp_path: Path, dtype: str
) -> None:
    without = shutil.ignore_patterns("engines")
    bundle = shutil.copytree(bundles / f"tirex-{dtype}", tmp_path / "out", ignore=without)
    begun = succeed_json("build", bundle, *RTX)
    going_on = begun["continuation"]
    folder = bundle / "engines"
    assert begun["engine"] == str(folder / "tensorrt_rtx-sm89.engine")
    assert going_on["engine"] == str(folder / "continue" / "tensorrt_rtx-sm89.engine")
    for made, file in ((begun, "model.onnx"), (going_on, "continue.onnx")):
        graph = onnx.load(str(bundle / file), load_external_data=False).graph
        wanted = [(node.name, node.op_type) for node in graph.node if node.domain == DOMAIN]
        assert [(p["node"], p["op_type"]) for p in made["plugins"]] == wanted
        assert len(wanted) == SMALL["blocks"]
        assert len(read_record(Path(made["engine"])).plugins) == len(wanted)
    context, patch = SMALL["context"], SMALL["patch"]
    profiles = [made["profiles"][0]["context"] for made in (begun, going_on)]
    assert profiles[0] == {"min": [1, 1], "opt": [4, context], "max": [4, context]}
    assert profiles[1] == {"min": [1, patch], "opt": [4, patch], "max": [4, context]}
    assert begun["bundle_sha256"] == going_on["bundle_sha256"]


def test_nvidias_command_is_one_for_each_graph(bundles: Path) -> None:
    bundle = bundles / "tirex-fp32"
    said = succeed("build", bundle, *RTX, "--print-trtexec")
    assert said.count("--saveEngine=") == 2
    assert f"--onnx={bundle}/continue.onnx" in said
