"""Decoding by a session: what it costs over ONNX Runtime alone, rows together, memory over time.

python -m benchmarks.bench_session [overhead] [rows] [memory] [--quick] [--threads N] [--work DIR]
                                   [--json F] [--check]

The bare loop is ``run_with_iobinding`` of the very same ONNX Runtime session, its states bound to
two sets of buffers that take turns; what both compute is compared before anything is timed.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.checkpoints import HF_VOCABULARY, hf_125m
from benchmarks.command import check, judged, read_arguments
from benchmarks.harness import Bar, Contender, compare, machine_facts
from benchmarks.model_run import Plan, Result, export, open_native
from xlstm_export.runtime.ort import OrtSession, cpu_threads
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.states import States
from xlstm_export.runtime.step_batch import StepBatch

OVERHEAD, GAIN, ROWS = 1.05, 6.0, 16
MEMORY_STEPS, WARM_STEPS = 100_000, 2_000
TENTHS = 10
GROWTH_MIB = 1.0
"""What the resident memory may differ by between two moments; a leak of 11 bytes a step shows."""
STEPS_A_TURN = 15


class BareLoop:
    """One row decoded by ``run_with_iobinding``: two bindings, two sets of states."""

    def __init__(self, session: OrtSession) -> None:
        import onnxruntime

        assert session._begin is not None
        self.run = session._begin._session
        manifest, make = session.manifest, onnxruntime.OrtValue.ortvalue_from_numpy
        sets = [{s.key: make(s.initial(1)) for s in manifest.states} for _ in range(2)]
        self.bindings = [self.run.io_binding() for _ in sets]
        for turn, binding in enumerate(self.bindings):
            for state in manifest.states:
                binding.bind_ortvalue_input(state.input, sets[turn][state.key])
                binding.bind_ortvalue_output(state.output, sets[1 - turn][state.key])
        self.turn = 0

    def step(self, token: Array) -> Array:
        """Logits [vocab] after ``token`` [1,1]."""
        binding = self.bindings[self.turn]
        self.turn = 1 - self.turn
        binding.bind_cpu_input("input_ids", token)
        binding.bind_output("logits", "cpu")
        self.run.run_with_iobinding(binding)
        return np.asarray(binding.get_outputs()[-1].numpy()[0, -1])


class SessionLoop:
    """One row decoded by ``Session.run``."""

    def __init__(self, session: OrtSession) -> None:
        self.session = session
        self.states: States | None = None

    def step(self, token: Array) -> Array:
        """Logits [vocab] after ``token`` [1,1]."""
        outputs, self.states = self.session.run({"input_ids": token}, self.states, last=True)
        return np.asarray(outputs["logits"][0, -1])


def bench_overhead(session: OrtSession, plan: Plan, result: Result) -> None:
    """A decode step by a session over the bare loop."""
    ours, bare = SessionLoop(session), BareLoop(session)
    random = np.random.default_rng(0)
    for token in random.integers(0, HF_VOCABULARY, (8, 1, 1)):
        np.testing.assert_array_equal(ours.step(token), bare.step(token))
    token = random.integers(0, HF_VOCABULARY, (1, 1))
    sides = [
        Contender("run_with_iobinding", lambda: bare.step(token)),
        Contender("session.run", lambda: ours.step(token)),
    ]
    measured = compare(
        "decode of one token, states carried", sides, turns=plan.turns(31), calls=STEPS_A_TURN
    )
    result.comparisons.append(measured)
    ratio = measured.ratio(0, 1).median
    result.bars.append(
        Bar("session.run: time over the bare loop's", ratio, OVERHEAD, "x", at_least=False)
    )


def stepping(session: OrtSession, rows: int) -> Callable[[], object]:
    """A call that steps ``rows`` rows once, all of which have made their prompt."""
    batch, logits = StepBatch(session, rows), {}
    for row in range(rows):
        batch.join([row + 1])
    while batch.joining:
        logits |= batch.step(dict.fromkeys(batch.rows, 1))

    def step() -> object:
        nonlocal logits
        logits = batch.step({row: int(found.argmax()) for row, found in logits.items()})
        return logits

    return step


def bench_rows(session: OrtSession, plan: Plan, result: Result) -> None:
    """Tokens a second of rows that step together, over those of one."""
    sides = [
        Contender("1 row", stepping(session, 1)),
        Contender(f"{ROWS} rows", stepping(session, ROWS)),
    ]
    measured = compare("StepBatch, one step", sides, turns=plan.turns(15), calls=STEPS_A_TURN)
    result.comparisons.append(measured)
    gain = ROWS / measured.ratio(0, 1).median
    result.numbers[f"tokens/s of {ROWS} rows over those of one"] = gain
    result.bars.append(Bar(f"tokens/s of {ROWS} rows over those of one", gain, GAIN, "x"))


def bench_memory(plan: Plan, result: Result) -> None:
    """Resident memory over many steps of a small model, one row and rows that come and go."""
    session = open_native(export(hf_125m(plan.work / "hf", small=True), plan), plan)
    steps = MEMORY_STEPS // (20 if plan.quick else 1)
    token = np.array([[3]])
    loop = SessionLoop(session)
    _measure_growth("one row", lambda step: loop.step(token), steps, result)
    batch = StepBatch(session, 4)
    logits: dict[int, Array] = {}

    def step(number: int) -> None:
        nonlocal logits
        if number % 50 == 0 and len(batch) == batch.most_rows:
            batch.leave(batch.rows[0])
        if number % 10 == 0 and len(batch) < batch.most_rows:
            batch.join([1, 2, 3])
        logits = batch.step({row: int(logits[row].argmax()) for row in batch.rows})

    _measure_growth("rows that join and leave", step, steps // 5, result)


def _measure_growth(what: str, step: Callable[[int], object], steps: int, result: Result) -> None:
    """Resident memory after each tenth of ``steps`` over that before them; told as it goes on."""
    process, found = psutil.Process(), list[float]()
    for number in range(WARM_STEPS):
        step(number)
    gc.collect()
    before, begun = process.memory_info().rss, time.monotonic()
    for tenth in range(TENTHS):
        for number in range(steps // TENTHS):
            step(number)
        gc.collect()
        found.append((process.memory_info().rss - before) / 2**20)
        done, seconds = (tenth + 1) * steps // TENTHS, time.monotonic() - begun
        words = f"{what}: {done} of {steps} steps, {seconds:.0f} s, {found[-1]:+.1f} MiB"
        print(words, file=sys.stderr, flush=True)
    result.numbers[f"resident memory, {what}, after {steps} steps more: MiB"] = found[-1]
    result.numbers[f"the most it was at any tenth of them, {what}: MiB"] = max(found)
    result.bars.append(
        Bar(f"growth over {steps} steps, {what}", found[-1], GROWTH_MIB, "MiB", at_least=False)
    )


PARTS = ("overhead", "rows", "memory")


def main() -> None:
    """Measure the parts that were asked for, print, and say whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=cpu_threads())
    parser.add_argument("--work", type=Path, help="folder that keeps checkpoints and bundles")
    arguments = read_arguments(parser, quick="a small model, few turns", parts=PARTS)
    facts, result = machine_facts(arguments.threads), Result()
    with tempfile.TemporaryDirectory(prefix="xlstm-bench-") as name:
        plan = Plan(arguments.work or Path(name), arguments.threads, arguments.quick)
        if {"overhead", "rows"} & set(arguments.parts):
            bundle = export(hf_125m(plan.work / "hf", small=plan.quick), plan)
            session = open_native(bundle, plan)
            _run_parts(arguments.parts, session, plan, result)
            session.close()
        if "memory" in arguments.parts:
            bench_memory(plan, result)
    result.bars = judged(result.bars, arguments)
    result.report(facts, arguments.json)
    check(result.bars, arguments)


def _run_parts(parts: list[str], session: OrtSession, plan: Plan, result: Result) -> None:
    parts_of: dict[str, Any] = {"overhead": bench_overhead, "rows": bench_rows}
    for name in parts:
        if name in parts_of:
            parts_of[name](session, plan, result)


if __name__ == "__main__":
    main()
