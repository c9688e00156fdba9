"""A bundle's matrix products without the rest of the model: the time that nothing can avoid.

The rate of a model is (FLOP of its MatMuls + FLOP of its recurrences) / time of the model; the
limit it is held to is FLOP of its MatMuls / time of the same MatMuls in ONNX Runtime:
- prefill: each shape [T,K] x [K,N] alone in a one-node session, its time taken as often as the
  model has it;
- one step: all of them in one session, on the model's own weights, so that as many bytes come
  from memory as in the model.
Weights are constant initialisers and so prepacked, as in the model; outputs go to bound buffers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from benchmarks.harness import Contender, Timing
from benchmarks.limits import BoundRun, ort_matmul
from xlstm_export.bundle.manifest import MODEL_FILE
from xlstm_export.ops.catalog import DOMAIN
from xlstm_export.runtime.ort import session_setting

_DATA_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class MatMuls:
    """The MatMuls of a bundle, each with a constant matrix, and its recurrences."""

    bundle: Path
    weights: tuple[onnx.TensorProto, ...]
    """In the order of the graph; the data stays in the file."""
    recurrent_flop: float
    """Of one token: for an mLSTM N (4 K V + 64 (K + V)), whatever is computed."""

    @property
    def shapes(self) -> Counter[tuple[int, int]]:
        """How often each [K,N] occurs."""
        return Counter((int(w.dims[0]), int(w.dims[1])) for w in self.weights)

    @property
    def matmul_flop(self) -> float:
        """Of one token."""
        return sum(2.0 * count * k * n for (k, n), count in self.shapes.items())

    @property
    def flop(self) -> float:
        """Of one token, MatMuls and recurrences."""
        return self.matmul_flop + self.recurrent_flop


def read_matmuls(bundle: Path) -> MatMuls:
    """Find them. Raises ValueError for a model that has a product of another kind."""
    graph = onnx.load(bundle / MODEL_FILE, load_external_data=False).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    weights, recurrent = [], 0.0
    inputs = {info.name: info for info in graph.input}
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            weight = constants.get(node.input[1])
            if node.op_type == "Gemm" or weight is None or len(weight.dims) != 2:
                raise ValueError(f"{bundle}: {node.name} does not multiply by a constant matrix")
            weights.append(weight)
        elif node.domain == DOMAIN:
            if node.op_type != "XlstmMLSTM":
                raise ValueError(f"{bundle}: no FLOP are counted for {node.op_type}")
            N, K, V = (d.dim_value for d in inputs[node.input[5]].type.tensor_type.shape.dim[1:])
            recurrent += N * (4 * K * V + 64 * (K + V))
    return MatMuls(bundle, tuple(weights), recurrent)


def shapes_alone(matmuls: MatMuls, steps: int, threads: int) -> list[Contender]:
    """One contender per shape of ``matmuls.shapes``, in that order, over ``steps`` rows."""
    random = np.random.default_rng(0)
    result = []
    for (k, n), count in matmuls.shapes.items():
        x = random.standard_normal((1, steps, k)).astype(np.float32)
        weight = random.standard_normal((k, n)).astype(np.float32)
        run = ort_matmul(x, weight, threads)
        name = f"MatMul alone [{steps},{k}]x[{k},{n}], {count} in the model"
        work = 2.0 * steps * k * n
        result.append(Contender(name, _repeated(run, count), work=work, repeats=count))
    return result


def _repeated(run: Callable[[], object], count: int) -> Callable[[], None]:
    """``count`` runs on end, as in the model: one alone would mostly wake the threads."""

    def runs() -> None:
        for _ in range(count):
            run()

    return runs


def all_alone(matmuls: MatMuls, steps: int, timings: Sequence[Timing]) -> Timing:
    """Time of all MatMuls of the model, turn by turn, from those of its shapes."""
    counts = matmuls.shapes.values()
    turns = [
        sum(count * t for count, t in zip(counts, turn, strict=True))
        for turn in zip(*(timing.turns for timing in timings), strict=True)
    ]
    work = steps * matmuls.matmul_flop
    return Timing("limit: its MatMuls, each alone", tuple(turns), work=work)


def one_step(matmuls: MatMuls, threads: int) -> Contender:
    """Every MatMul of the model on one row, in one session on the model's own weights."""
    widths = {int(w.dims[0]) for w in matmuls.weights}
    names = [f"y{index}" for index in range(len(matmuls.weights))]
    nodes = [
        helper.make_node("MatMul", [f"x{w.dims[0]}", w.name], [name])
        for name, w in zip(names, matmuls.weights, strict=True)
    ]
    float32 = onnx.TensorProto.FLOAT
    unique = {w.name: w for w in matmuls.weights}
    graph = helper.make_graph(
        nodes,
        "matmuls",
        [helper.make_tensor_value_info(f"x{k}", float32, [1, 1, k]) for k in sorted(widths)],
        [helper.make_tensor_value_info(name, float32, None) for name in names],
        list(unique.values()),
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    random = np.random.default_rng(0)
    inputs = {f"x{k}": random.standard_normal((1, 1, k)).astype(np.float32) for k in widths}
    outputs = {
        name: np.empty((1, 1, int(w.dims[1])), np.float32)
        for name, w in zip(names, matmuls.weights, strict=True)
    }
    run = BoundRun(session_on(model, matmuls.bundle, threads), inputs, outputs)
    return Contender("limit: its MatMuls in one session", run, work=matmuls.matmul_flop)


def session_on(model: onnx.ModelProto, bundle: Path, threads: int) -> ort.InferenceSession:
    """``model`` in ONNX Runtime, on the external data of ``bundle``."""
    options = session_setting(ort, threads, native=False).options
    options.add_session_config_entry(_DATA_FOLDER, str(bundle.resolve()))
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
