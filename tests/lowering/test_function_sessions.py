"""Function bodies at every level of graph optimisation, and with past and present in one buffer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.cases import OP_CASES, OpCase, make_inputs
from tests.ops.op_models import Job, assert_within_rule, run_body, run_in_other_runtime
from tests.ops.op_sessions import DEFAULT, LEVELS, Setting
from xlstm_export.lowering.options import OPSETS
from xlstm_export.ops.schema import TX_DTYPES

SHORT = [case for case in OP_CASES if case.size["T"] < 200]
FAST, SAFE = LEVELS[-1], LEVELS[0]

# --- graph optimisation ------------------------------------------------------------------------


@pytest.mark.parametrize("tx", TX_DTYPES)
@pytest.mark.parametrize("level", LEVELS[:-1])
@pytest.mark.parametrize("case", SHORT, ids=str)
def test_every_level_of_optimisation_obeys_the_rule(case: OpCase, level: str, tx: str) -> None:
    inputs = make_inputs(case, tx)
    first = run_body(case, inputs, tx, setting=Setting(level))
    assert_within_rule(case, inputs, tx, first)
    for opset in OPSETS[1:] if tx == "float32" else ():
        later = run_body(case, inputs, tx, opset, setting=Setting(level))
        for name, value in first.items():
            np.testing.assert_array_equal(later[name], value, err_msg=f"{name} {opset}")


# --- past and present in one buffer ------------------------------------------------------------

STEPS = (1, 2, 7, 64, 65, 130)
ORDERS = (
    *(Setting(level) for level in LEVELS),
    *(Setting(level, order="PRIORITY_BASED") for level in (SAFE, FAST)),
    *(Setting(level, mode="ORT_PARALLEL") for level in (SAFE, FAST)),
)
"""The nodes of a graph run in an order that its operands leave open."""
ENDS = (Setting(SAFE), *(setting for setting in ORDERS if setting.level == FAST))
FORMS = (
    OpCase("XlstmMLSTM", (("N", 2), ("K", 8), ("V", 16))),
    OpCase("XlstmMLSTM", (("N", 1), ("K", 5), ("V", 3)), (("scale_side", 1), ("chunk_size", 32))),
    OpCase("XlstmSLSTM", (("N", 2), ("H", 8))),
    OpCase("XlstmSLSTM", (("N", 1), ("H", 8)), (("n_floor", 1.0), ("state_rounding", 1))),
    OpCase("XlstmCausalConv1d", (("D", 8), ("W", 4))),
    OpCase("XlstmCausalConv1d", (("D", 8), ("W", 2)), (("activation", 1),)),
)


def calls() -> Iterator[OpCase]:
    for form in FORMS:
        for steps in STEPS:
            for batch, lengths in ((1, (-1,)), (3, (-1,)), (3, (steps, 0, 1))):
                yield replace(
                    form, sizes=(("B", batch), ("T", steps), *form.sizes), lengths=lengths
                )


CALLS = list(calls())


@pytest.mark.parametrize("fixed", [False, True], ids=["dynamic", "fixed"])
@pytest.mark.parametrize("case", CALLS, ids=str)
def test_one_buffer_may_hold_past_and_present(case: OpCase, fixed: bool) -> None:
    for tx in ("float32",) if fixed else TX_DTYPES:
        inputs = make_inputs(case, tx)
        for setting in (DEFAULT,) if tx != "float32" else ENDS if fixed else ORDERS:
            apart, shared = (
                run_body(case, inputs, tx, fixed=fixed, setting=setting, one_buffer=one)
                for one in (False, True)
            )
            for name, value in apart.items():
                np.testing.assert_array_equal(shared[name], value, err_msg=f"{name} {tx} {setting}")


# --- older and newer runtimes ------------------------------------------------------------------

RUNTIMES = [Path(p) for p in os.environ.get("XLSTM_ORT_DIRS", "").split(os.pathsep) if p]

every_runtime = pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda path: path.name)


@every_runtime
def test_every_level_obeys_the_rule_in_other_runtimes(runtime: Path, tmp_path: Path) -> None:
    jobs = [
        Job(case, make_inputs(case), "float32", opset, setting=Setting(level))
        for case in SHORT
        for opset in OPSETS
        for level in LEVELS
        if opset == OPSETS[0] or level == SAFE  # test_ort_versions has the rest
    ]
    _, results = run_in_other_runtime(runtime, jobs, tmp_path)
    for job, got in zip(jobs, results, strict=True):
        assert_within_rule(job.case, job.inputs, job.tx, got)


@every_runtime
def test_one_buffer_may_hold_both_in_other_runtimes(runtime: Path, tmp_path: Path) -> None:
    jobs = [
        Job(case, make_inputs(case), "float32", setting=setting, one_buffer=one)
        for case in CALLS
        for setting in ENDS
        for one in (False, True)
    ]
    _, results = run_in_other_runtime(runtime, jobs, tmp_path)
    for job, apart, shared in zip(jobs[::2], results[::2], results[1::2], strict=True):
        for name, value in apart.items():
            np.testing.assert_array_equal(
                shared[name], value, err_msg=f"{name} {job.case} {job.setting}"
            )
