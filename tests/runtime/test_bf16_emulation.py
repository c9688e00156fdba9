"""bfloat16 graphs widened for a CPU: what is said of a graph that is damaged."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.families.block_stack_checkpoints import make_block_stack
from xlstm_export import pipeline
from xlstm_export.errors import BundleError
from xlstm_export.runtime.bf16_emulation import emulated_graph


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("bf16")
    source, _ = make_block_stack(folder / "source")
    made = pipeline.export(source.path, folder / "bundle", dtype="bf16")
    return made.model_path.read_bytes()


def test_no_arithmetic_in_bfloat16_is_left(graph: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph)
    before, after = onnx.load_from_string(graph), onnx.load_from_string(emulated_graph(path))
    casts = [sum(n.op_type == "Cast" for n in m.graph.node) for m in (before, after)]
    others = [[n.op_type for n in m.graph.node if n.op_type != "Cast"] for m in (before, after)]
    assert casts[1] > casts[0]
    assert sorted(others[0]) == sorted(others[1])


@pytest.mark.parametrize("size", [0, 1, 1000, 20_000])
def test_a_graph_cut_short_is_named(graph: bytes, tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph[:size])
    with pytest.raises(BundleError, match=r"model\.onnx: not a readable graph; export again"):
        emulated_graph(path)


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx: missing; export again"):
        emulated_graph(tmp_path / "model.onnx")
