"""A bundle's low-bit products without the rest of the model, as ONNX Runtime fuses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from benchmarks.harness import Contender
from benchmarks.limits import BoundRun
from benchmarks.model_matmuls import session_on
from xlstm_export.bundle.manifest import MODEL_FILE


def one_step(bundle: Path, threads: int, work: float) -> Contender:
    """Every DequantizeLinear with its MatMul on one row, in one session on the bundle's data."""
    graph = onnx.load(bundle / MODEL_FILE, load_external_data=False).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    widened = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes, used, outputs = [], {}, {}
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in widened:
            continue
        wide = widened[node.input[1]]
        inputs, size = constants[wide.input[0]].dims
        product = helper.make_node("MatMul", [f"x{inputs}", wide.output[0]], [f"y{len(outputs)}"])
        nodes += [wide, product]
        outputs[product.output[0]] = np.empty((1, 1, size), np.float32)
        used |= {name: constants[name] for name in wide.input}
    kind = onnx.TensorProto.FLOAT
    widths = sorted({int(n.input[0][1:]) for n in nodes if n.op_type == "MatMul"})
    made = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info(f"x{k}", kind, [1, 1, k]) for k in widths],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        list(used.values()),
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    random = np.random.default_rng(0)
    rows = {f"x{k}": random.standard_normal((1, 1, k)).astype(np.float32) for k in widths}
    run = BoundRun(session_on(model, bundle, threads), rows, outputs)
    return Contender("limit: its low-bit products in one session", run, work=work)
