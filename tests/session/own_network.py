"""A small network of one's own as a bundle, written without torch: logits are rows of a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 7
_TYPES = {"int64": TensorProto.INT64, "int32": TensorProto.INT32}


def write_own_network(
    folder: Path, *, ids: Literal["int64", "int32"] = "int64", pools: bool = False
) -> Path:
    """``input_ids`` to ``logits``, [batch, sequence, SIZE], or of the whole sequence [batch, SIZE].

    It carries no states.
    """
    table = numpy_helper.from_array(np.eye(SIZE, dtype=np.float32), "table")
    steps = "steps" if pools else "logits"
    nodes = [helper.make_node("Gather", ["table", "input_ids"], [steps])]
    sequence: list[int | str] = ["batch", "sequence"]
    shape = ["batch", SIZE] if pools else [*sequence, SIZE]
    if pools:
        axes = numpy_helper.from_array(np.array([1]), "axes")
        nodes.append(helper.make_node("ReduceMean", [steps, "axes"], ["logits"], keepdims=0))
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("input_ids", _TYPES[ids], sequence)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [table, axes] if pools else [table],
    )  # fmt: skip
    opset = helper.make_opsetid("", 18)
    manifest = {
        "format_version": 1, "family": "module", "dtype": "float32", "opset": 18,
        "inputs": [{"name": "input_ids", "dtype": ids, "shape": sequence}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": shape}],
        "states": [], "runs_on": ["onnxruntime-cpu"],
    }  # fmt: skip
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    (folder / "xlstm_export.json").write_text(json.dumps(manifest))
    return folder
