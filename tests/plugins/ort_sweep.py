"""What the sanitizers' children do with the custom-op library, through ONNX Runtime.

python -m tests.plugins.ort_sweep callers|shared-state|short-input|short-output

The last three are planted faults: a sanitizer that stays silent there is not at work.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from threading import Barrier, Event, Semaphore, Thread

import numpy as np
import onnxruntime as ort

from tests.cases import Array, Inputs, OpCase, make_inputs
from tests.ops.op_models import run_session
from tests.plugins.ort_library import PACKED, kernel_model, make_session
from tests.plugins.sanitized import announce_end
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES

CALLERS, ROUNDS = 8, 12
SIZES = (
    OpCase("XlstmMLSTM", (("B", 2), ("T", 70), ("N", 2), ("K", 33), ("V", 40))),
    OpCase("XlstmSLSTM", (("B", 3), ("T", 20), ("N", 2), ("H", 24))),
    OpCase("XlstmCausalConv1d", (("B", 2), ("T", 90), ("D", 50), ("W", 4))),
)


def callers() -> None:
    """Eight threads call each session at once, states of their own; same bits as alone."""
    jobs = [Job(case, tx, arena) for case in SIZES for tx in TX_DTYPES for arena in (True, False)]

    def call(number: int) -> None:
        for job in jobs:
            for _ in range(ROUNDS):
                job.run(number)

    _at_once(call, CALLERS)
    print("called at once", flush=True)
    os._exit(0)  # ONNX Runtime's own thread and static destructors race at a common exit


class Job:
    """One session, and each caller's inputs with their results."""

    def __init__(self, case: OpCase, tx: str, arena: bool) -> None:
        drawn = make_inputs(case, tx)
        constants = {name: drawn[name] for op, name in PACKED.items() if op == case.op}
        model = kernel_model(case, tx, constants=constants)
        self.case, self.tx = case, tx
        self.session = make_session(model, threads=1, parts=1, arena=arena)
        self.inputs = [{**make_inputs(case, tx, seed=s), **constants} for s in range(CALLERS)]
        self.wanted = [run_session(self.session, case.op, x, tx) for x in self.inputs]

    def run(self, caller: int) -> None:
        """Raises AssertionError where a bit differs."""
        got = run_session(self.session, self.case.op, self.inputs[caller], self.tx)
        for name, value in self.wanted[caller].items():
            assert got[name].tobytes() == value.tobytes(), f"{self.case} {self.tx}: {name} differs"


def shared_state() -> None:
    """Two threads continue one state in place, in one session: a race inside the kernel."""
    case = SIZES[1]
    session = make_session(kernel_model(case, "float32"), threads=1, parts=1)
    arrays = _operands(case, make_inputs(case))
    results = {s.name: np.zeros(case.shape(s.dims), np.float32) for s in CATALOG[case.op].outputs}

    def call(number: int) -> None:
        binding = _bound(session, case, arrays, results)
        for _ in range(200):
            session.run_with_iobinding(binding)

    _at_once(call, 2)


def short_input() -> None:
    """The kernel reads an input whose memory is one element too short."""
    case = SIZES[0]
    arrays = _operands(case, make_inputs(case))
    arrays["C"] = arrays["C"].reshape(-1)[:-1].copy()
    _announce(arrays["C"])
    _run_bound(case, arrays, {})


def short_output() -> None:
    """The kernel writes an output whose memory is one element too short."""
    case = SIZES[0]
    arrays = _operands(case, make_inputs(case))
    short = np.zeros(math.prod(case.shape(CATALOG[case.op].outputs[0].dims)) - 1, np.float32)
    _announce(short)
    _run_bound(case, arrays, {"h": short})


def _announce(short: Array) -> None:
    announce_end(short.ctypes.data + short.nbytes)


def _run_bound(case: OpCase, arrays: Inputs, results: Inputs) -> None:
    session = make_session(kernel_model(case, "float32"), arena=False)
    session.run_with_iobinding(_bound(session, case, arrays, results))


def _operands(case: OpCase, inputs: Inputs) -> Inputs:
    return {n: a.astype(np.int32 if n == "lengths" else np.float32) for n, a in inputs.items()}


def _bound(
    session: ort.InferenceSession, case: OpCase, arrays: Inputs, results: Inputs
) -> ort.IOBinding:
    """Operands bound by address: their shapes are the case's, whatever the arrays hold."""
    binding, schema = session.io_binding(), CATALOG[case.op]
    for spec in schema.inputs:
        array = arrays[spec.name]
        shape = array.shape if spec.type == "lengths" else case.shape(spec.dims)
        binding.bind_input(spec.name, "cpu", 0, array.dtype, shape, array.ctypes.data)
    for spec in schema.outputs:
        if spec.name in results:
            shape, place = case.shape(spec.dims), results[spec.name].ctypes.data
            binding.bind_output(spec.name, "cpu", 0, np.float32, shape, place)
        else:
            binding.bind_output(spec.name, "cpu")
    return binding


def _at_once(call: Callable[[int], None], count: int) -> None:
    """``call`` on ``count`` threads, begun together; raises the first of their exceptions.

    The threads then stay: glibc frees an ended one's memory out of ThreadSanitizer's sight.
    """
    barrier, done, stay = Barrier(count), Semaphore(0), Event()
    failures: list[Exception] = []

    def start(number: int) -> None:
        barrier.wait()
        try:
            call(number)
        except Exception as error:
            failures.append(error)
        done.release()
        stay.wait()

    for number in range(count):
        Thread(target=start, args=(number,), daemon=True).start()
    for _ in range(count):
        done.acquire()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    {
        "callers": callers,
        "shared-state": shared_state,
        "short-input": short_input,
        "short-output": short_output,
    }[sys.argv[1]]()
