"""Each instruction set of this processor, forced: it says so, it is right, and it really ran.

XLSTM_CPU_ISA is read once a process, so every set has a child of its own.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cases import OP_CASES, Array, OpCase, make_inputs
from tests.ops.op_models import assert_within_rule
from tests.plugins.executed import executed, why_not
from tests.plugins.kernels import KernelRun, Status, isa, library, run_kernel
from tests.plugins.test_kernels import SIZES
from xlstm_export.native import ISA_VARIABLE
from xlstm_export.ops.schema import TX_DTYPES

ROOT = Path(__file__).resolve().parents[2]
KNOWN = ("portable", "neon", "avx2", "avx512")
FLAGS = {
    "portable": set(),
    "neon": {"asimd"},
    "avx2": {"avx2", "fma", "f16c"},
    "avx512": {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
}
"""What /proc/cpuinfo must name for a set to be had."""

ENCODINGS = {
    "portable": {"baseline"},
    "avx2": {"baseline", "VEX"},
    "avx512": {"baseline", "VEX", "EVEX"},
}
"""Kinds of instructions that a call in a set executes; on AArch64 all have the baseline's."""

CASES = (*OP_CASES, *SIZES)
STEPPED = (
    OpCase("XlstmMLSTM", (("B", 1), ("T", 1), ("N", 1), ("K", 9), ("V", 20))),
    OpCase("XlstmMLSTM", (("B", 1), ("T", 9), ("N", 1), ("K", 9), ("V", 20))),
    OpCase("XlstmSLSTM", (("B", 1), ("T", 2), ("N", 1), ("H", 20))),
    OpCase("XlstmCausalConv1d", (("B", 1), ("T", 8), ("D", 20), ("W", 4))),
)
"""Small, since each instruction costs microseconds; the mLSTM by steps and by a chunk."""

Results = dict[tuple[str, str], dict[str, Array]]


@cache
def flags_of_this_processor() -> frozenset[str]:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    lines = [x for x in text.splitlines() if x.startswith(("flags", "Features"))]
    return frozenset(lines[0].partition(":")[2].split())


def to_be_had() -> list[str]:
    """The sets that this processor has, from the plainest on."""
    return [name for name in KNOWN if FLAGS[name] <= flags_of_this_processor()]


def in_child(what: str, forced: str | None) -> Any:
    """What ``what`` of this module gives in a process where ``forced`` is asked for."""
    environment = {k: v for k, v in os.environ.items() if k != ISA_VARIABLE}
    if forced is not None:
        environment[ISA_VARIABLE] = forced
    done = subprocess.run(
        [sys.executable, "-m", "tests.plugins.test_kernel_isas", what],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return pickle.loads(done.stdout)


@cache
def results_of(forced: str) -> Results:
    """Outputs of every case and dtype; the child has said that the set is the one in use."""
    said, results = in_child("results", forced)
    assert said == (Status.OK, forced)
    return dict(results)


every_set = pytest.mark.parametrize("forced", to_be_had())
plainer_set = pytest.mark.parametrize("forced", to_be_had()[:-1])
"""The best one is what test_kernels.py runs."""


@plainer_set
@pytest.mark.parametrize("tx", TX_DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_plainer_set_obeys_the_rule(case: OpCase, tx: str, forced: str) -> None:
    assert_within_rule(case, make_inputs(case, tx), tx, results_of(forced)[str(case), tx])


@pytest.mark.parametrize("forced", [name for name in to_be_had() if name in ENCODINGS])
def test_each_set_executes_its_own_instructions(forced: str) -> None:
    """Stepped through, instruction by instruction: the forced path is the one that ran."""
    refused = why_not()
    if refused:
        pytest.skip(refused)
    for (name, tx), seen in in_child("executed", forced).items():
        encodings = {encoding for encoding, count in seen.items() if count}
        assert encodings == ENCODINGS[forced], f"{name} {tx}: {seen}"


def same_bits(a: dict[str, Array], b: dict[str, Array]) -> bool:
    return all(a[name].tobytes() == b[name].tobytes() for name in a)


@every_set
def test_a_set_gives_the_same_bits_in_another_process(forced: str) -> None:
    _, again = in_child("results", forced)
    assert all(same_bits(again[key], value) for key, value in results_of(forced).items())


def test_the_best_set_is_chosen_where_none_is_forced() -> None:
    for nothing in (None, ""):
        status, name = in_child("isa", nothing)
        assert (status, name) == (Status.OK, to_be_had()[-1])
        assert name != "portable" or "avx2" not in flags_of_this_processor()


@pytest.mark.parametrize("forced", ["sse9", "AVX2", "avx2 ", *(set(KNOWN) - set(to_be_had()))])
def test_a_set_that_is_not_to_be_had_is_no_silent_fallback(forced: str) -> None:
    status, name = in_child("isa", forced)
    assert (status, name) == (Status.UNAVAILABLE, to_be_had()[-1])
    statuses, written = in_child("refusals", forced)
    assert set(statuses) == {Status.UNAVAILABLE}
    assert not written


def child_results() -> tuple[tuple[Status, str], Results]:
    results = {
        (str(case), tx): run_kernel(case, make_inputs(case, tx), tx)
        for case in CASES
        for tx in TX_DTYPES
    }
    return isa(), results


def child_refusals() -> tuple[list[Status], list[str]]:
    """Statuses of good calls of every operator, and the outputs they wrote to."""
    statuses, written = [], []
    for case in {case.op: case for case in OP_CASES}.values():
        kernel = KernelRun(case, make_inputs(case), "float32")
        kernel.add_workspace(1)
        statuses.append(kernel.run())
        results = kernel.results().items()
        written += [name for name, array in results if not np.isnan(array).all()]
    return statuses, written


def child_executed() -> dict[tuple[str, str], Counter[str]]:
    """Instructions by encoding of a small call of each kind."""
    seen = {}
    for case in STEPPED:
        for tx in TX_DTYPES:
            kernel = KernelRun(case, make_inputs(case, tx), tx)
            kernel.add_workspace(1)
            run = partial(library().xlstm_cpu_run, kernel.call, None)
            seen[str(case), tx] = executed(run)
            assert kernel.run() == Status.OK
    return seen


if __name__ == "__main__":
    answers = {
        "isa": isa,
        "results": child_results,
        "executed": child_executed,
        "refusals": child_refusals,
    }
    sys.stdout.buffer.write(pickle.dumps(answers[sys.argv[1]]()))
