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


@pytest.mark.parametrize(
    ("op", "sizes", "tx", "variant"),
    [
        ("XlstmMLSTM", "B1 T1 N8 K256 V512", "bfloat16", "step"),
        ("XlstmMLSTM", "B2 T16 N1 K1024 V3", "float32", "step"),
        ("XlstmMLSTM", "B1 T1 N1 K1025 V8", "bfloat16", PLAIN),  # no block has so many rows
        ("XlstmCausalConv1d", "B1 T9 D12 W4", "float16", "vector"),
        ("XlstmCausalConv1d", "B1 T9 D10 W4", "float16", PLAIN),
        ("XlstmCausalConv1d", "B1 T9 D12 W3", "float16", PLAIN),
    ],
)
def test_sizes_and_types_choose_the_variant(op: str, sizes: str, tx: str, variant: str) -> None:
    pairs = tuple((word[0], int(word[1:])) for word in sizes.split())
    assert made(OpCase(op, pairs), tx).variant() == variant
