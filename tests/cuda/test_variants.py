"""Which variant of an operator's kernels a call takes, and how the environment names another."""

from __future__ import annotations

import pytest

from tests.cases import OP_CASES, OpCase, make_inputs
from tests.cuda.on_cpu import CudaRun, needs_compiler
from tests.gpu.kernels import PLAIN, VARIABLES
from tests.plugins.kernels import Status
from xlstm_export.ops.catalog import CATALOG

pytestmark = needs_compiler


def case_of(op: str) -> OpCase:
    return next(case for case in OP_CASES if case.op == op)


def made(case: OpCase, tx: str) -> CudaRun:
    run = CudaRun(case, make_inputs(case, tx), tx)
    run.add_workspace(1)
    return run


def test_every_operator_has_a_variable() -> None:
    assert set(VARIABLES) == set(CATALOG)


@pytest.mark.parametrize("op", list(VARIABLES))
def test_double_precision_takes_the_plain_kernel(op: str) -> None:
    assert made(case_of(op), "float64").variant() == PLAIN


@pytest.mark.parametrize("op", list(VARIABLES))
def test_the_environment_names_the_variant(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES[op], PLAIN)
    assert made(case_of(op), "bfloat16").variant() == PLAIN
    monkeypatch.setenv(VARIABLES[op], "")
    assert isinstance(made(case_of(op), "bfloat16").variant(), str)


@pytest.mark.parametrize("op", list(VARIABLES))
def test_a_variant_that_is_not_there_runs_nothing(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES[op], "no-such")
    run = made(case_of(op), "bfloat16")
    assert run.variant() == Status.UNAVAILABLE
    assert run.run() == Status.UNAVAILABLE
    others = [other for other in VARIABLES if other != op]
    assert all(made(case_of(other), "bfloat16").run() == Status.OK for other in others)
