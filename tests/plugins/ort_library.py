"""The custom-op library in ONNX Runtime: one-node models without a body, sessions, runs.

Without its function body a node runs in the library's kernel or not at all. Started as a program,
it runs pickled jobs under whichever ONNX Runtime PYTHONPATH has.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnx import helper

from tests.cases import NUMPY_DTYPES, Array, Inputs, OpCase
from tests.ops.op_models import model_bytes, run_session
from xlstm_export.native import ort_library_path

THREADS_KEY = "ai.xlstm.intra_op_num_threads"

PACKED = {"XlstmSLSTM": "R", "XlstmCausalConv1d": "w"}
"""The operand that a kernel packs when it is an initialiser."""


def library() -> Path:
    """The custom-op library. Raises RuntimeError where there is none."""
    path = ort_library_path()
    if path is None:
        raise RuntimeError("there is no libxlstm_ort.so: `make wheel` builds it")
    return path


def kernel_model(
    case: OpCase, tx: str, *, fixed: bool = False, constants: Mapping[str, Array] | None = None
) -> onnx.ModelProto:
    """``op_model`` without the function body; inputs among ``constants`` become initialisers."""
    model = onnx.load_from_string(model_bytes(case, tx, fixed=fixed))
    del model.functions[:]
    given = dict(constants or {})
    for info in list(model.graph.input):
        if info.name in given:
            array = given[info.name].astype(NUMPY_DTYPES[tx])
            elem = info.type.tensor_type.elem_type
            raw = array.tobytes()
            model.graph.initializer.append(
                helper.make_tensor(info.name, elem, array.shape, raw, raw=True)
            )
            model.graph.input.remove(info)
    return model


def make_session(
    model: onnx.ModelProto | bytes,
    *,
    threads: int = 1,
    parts: int | str | None = None,
    native: bool = True,
    profile: Path | None = None,
    arena: bool = True,
) -> ort.InferenceSession:
    """A session with the library registered; with ``profile``, it writes that trace.

    ``parts`` is the number of threads that the library is told of, by default nothing. Without
    ``arena`` every tensor is an allocation of its own, for AddressSanitizer.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
    if parts is not None:
        options.add_session_config_entry(THREADS_KEY, str(parts))
    if native:
        options.register_custom_ops_library(str(library()))
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def session_of(case: OpCase, tx: str, threads: int = 1) -> ort.InferenceSession:
    """The session of all cases that share ``case``'s operator and attributes."""
    return _session_of(OpCase(case.op, (), case.attributes), tx, threads)


@cache
def _session_of(case: OpCase, tx: str, threads: int) -> ort.InferenceSession:
    return make_session(kernel_model(case, tx), threads=threads)


def run_kernel(case: OpCase, inputs: Inputs, tx: str, threads: int = 1) -> dict[str, Array]:
    """The library's kernel on ``inputs``; outputs in their own types."""
    return run_session(session_of(case, tx, threads), case.op, inputs, tx)


def run_aliased(
    case: OpCase, inputs: Inputs, tx: str, session: ort.InferenceSession | None = None
) -> dict[str, Array]:
    """As ``run_kernel``, each state's input and output bound to one buffer."""
    return run_session(session or session_of(case, tx), case.op, inputs, tx, one_buffer=True)


def executed_ops(session: ort.InferenceSession) -> list[str]:
    """Operator type of every node that a profiled session has run; ends the profile."""
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [
        event["args"]["op_name"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]


def run_elsewhere(
    runtime: str, jobs: list[tuple[OpCase, Inputs, str]], folder: Path
) -> tuple[str, list[dict[str, Array]], list[str]]:
    """``jobs`` (case, inputs, TX) under the ONNX Runtime in the folder ``runtime``.

    Returns its version, the outputs, and the operators it ran when the models had their bodies.
    """
    (folder / "jobs").write_bytes(pickle.dumps(jobs))
    path = os.pathsep.join([runtime, str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-m", "tests.plugins.ort_library", str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr}"
    result: tuple[str, list[dict[str, Array]], list[str]] = pickle.loads(
        (folder / "results").read_bytes()
    )
    return result


def _run_jobs(folder: Path) -> None:
    jobs: list[tuple[OpCase, Inputs, str]] = pickle.loads((folder / "jobs").read_bytes())
    results = [run_kernel(case, inputs, tx) for case, inputs, tx in jobs]
    seen: dict[Any, list[str]] = {}
    for case, inputs, tx in jobs:
        if (case.op, tx) not in seen:
            session = make_session(model_bytes(case, tx), profile=folder / "profile")
            run_session(session, case.op, inputs, tx)
            seen[case.op, tx] = executed_ops(session)
    ran = [op for ops in seen.values() for op in ops]
    (folder / "results").write_bytes(pickle.dumps((ort.__version__, results, ran)))


if __name__ == "__main__":
    _run_jobs(Path(sys.argv[1]))
