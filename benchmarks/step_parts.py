"""What each part of a decode step costs: the time that taking it out of the graph saves.

python -m benchmarks.step_parts BUNDLE [--turns 40]

Of a bundle of the xLSTM-7B layout with weights in few bits. Processor time of one thread, so that
other work on the machine counts little; the profiler, which adds to every node, has no part in it.
States lie in place. A graph with a part taken out computes something else.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.lowbit_products import one_step
from xlstm_export.bundle.manifest import MODEL_FILE, read_manifest
from xlstm_export.runtime.ort import DATA_FOLDER, session_setting

CALLS = 8


def bypass(graph: onnx.GraphProto, op_type: str, ending: str, input_: int) -> None:
    """Readers of the first output of such nodes read the nodes' input instead."""
    for node in graph.node:
        if node.op_type != op_type or not node.name.endswith(ending):
            continue
        for reader in graph.node:
            for place, name in enumerate(reader.input):
                if name == node.output[0] and reader is not node:
                    reader.input[place] = node.input[input_]


def without_recurrences(graph: onnx.GraphProto) -> None:
    """h is v; the states end, and nothing reads the gates."""
    bypass(graph, "XlstmMLSTM", "", 2)
    keep_logits(graph)


def without_gates(graph: onnx.GraphProto) -> None:
    """The gates i and f are zero."""
    heads = next(int(i.type.tensor_type.shape.dim[1].dim_value)
                 for i in graph.input if i.name.endswith("mlstm.m"))  # fmt: skip
    zeros = np.zeros((1, 1, heads), np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(zeros, "zero_gates"))
    for node in graph.node:
        if node.op_type == "XlstmMLSTM":
            node.input[3] = node.input[4] = "zero_gates"


def products_alone(graph: onnx.GraphProto) -> None:
    """One product after the other: what lies between them takes a part of the one before."""
    made = {output: node for node in graph.node for output in node.output}
    for name, part in (("/mlstm/out", 3), ("/ffn/down", 1)):
        for node in graph.node:
            if node.op_type == "MatMul" and node.name.endswith(name):
                split = made[f"{node.name.rpartition('/')[0]}/Split.{part}"]
                node.input[0] = split.output[part]
    keep_logits(graph)


def keep_logits(graph: onnx.GraphProto) -> None:
    """No state comes out."""
    del graph.output[1:]


def prune(graph: onnx.GraphProto) -> None:
    """Take out what nothing reads."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    for field, left in (
        (graph.node, kept[::-1]),
        (graph.initializer, [t for t in graph.initializer if t.name in wanted]),
        (graph.input, [i for i in graph.input if i.name in wanted]),
    ):
        del field[:]
        field.extend(left)


PARTS: dict[str, Callable[[onnx.GraphProto], None]] = {
    "gates": without_gates,
    "recurrences, states and gates": without_recurrences,
    "all but products, norms and residuals": products_alone,
}


def runner(bundle: Path, edit: Callable[[onnx.GraphProto], None] | None) -> Callable[[], object]:
    """A step of the bundle's graph after ``edit``."""
    model = onnx.load(bundle / MODEL_FILE, load_external_data=False)
    if edit is not None:
        edit(model.graph)
        prune(model.graph)
    options = session_setting(ort, 1, native=True).options
    options.enable_mem_pattern = False  # as OrtSession has it
    options.add_session_config_entry(DATA_FOLDER, str(bundle.resolve()))
    session = ort.InferenceSession(model.SerializeToString(), options)
    binding = session.io_binding()
    given = {tensor.name for tensor in session.get_inputs()}
    for state in read_manifest(bundle).states:
        value = ort.OrtValue.ortvalue_from_numpy(state.initial(1))
        if state.input in given:
            binding.bind_ortvalue_input(state.input, value)
            binding.bind_ortvalue_output(state.output, value)
    binding.bind_cpu_input("input_ids", np.array([[5]]))
    binding.bind_output("logits")
    return lambda: session.run_with_iobinding(binding)


def main() -> None:
    """Measure in turns, and print milliseconds and shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--turns", type=int, default=40)
    arguments = parser.parse_args()
    bundle = arguments.bundle
    sides = {"whole step": runner(bundle, None)}
    sides |= {name: runner(bundle, edit) for name, edit in PARTS.items()}
    sides["its products in one session"] = one_step(bundle, 1, 1.0).call  # type: ignore[assignment]
    turns: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.turns):
        for name, run in sides.items():
            run()
            start = time.thread_time()
            for _ in range(CALLS):
                run()
            turns[name].append((time.thread_time() - start) / CALLS)
    whole = turns["whole step"]
    for name, seconds in turns.items():
        spent = seconds
        if name in PARTS:
            spent = [a - b for a, b in zip(whole, seconds, strict=True)]
        share = statistics.median(a / b for a, b in zip(spent, whole, strict=True))
        print(f"{name:40s} {1e3 * statistics.median(spent):6.2f} ms {share:6.1%}")


if __name__ == "__main__":
    main()
