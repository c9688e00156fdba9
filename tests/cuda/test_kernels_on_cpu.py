"""The CUDA kernels' source run on the CPU, held to the one rule of ``validation.tolerance``."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import (
    OP_CASES,
    Inputs,
    OpCase,
    make_inputs,
    odd_states,
    poisoned,
    run_in_pieces,
    valid_steps,
)
from tests.cuda.on_cpu import ASCENDING, DESCENDING, CudaRun, needs_compiler, run_cuda
from tests.gpu.kernels import PLAIN, VARIABLES
from tests.ops.op_models import assert_within_rule
from tests.plugins.kernels import Status, element
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES

pytestmark = needs_compiler

SHUFFLED = 7
every_tx = pytest.mark.parametrize("tx", TX_DTYPES)


def case_of(op: str, sizes: str, **attributes: float) -> OpCase:
    """``sizes`` like "B2 T65"; lengths may be among the attributes."""
    pairs = tuple((word[0], int(word[1:])) for word in sizes.split())
    return OpCase(op, pairs, tuple(attributes.items()))


SIZES = (
    case_of("XlstmMLSTM", "B1 T3 N2 K256 V64"),
    case_of("XlstmMLSTM", "B1 T20 N1 K600 V40", scale_side=1),  # more rows than registers hold
    case_of("XlstmMLSTM", "B2 T18 N1 K1030 V3", gate_soft_cap=15.0),
    case_of("XlstmMLSTM", "B1 T17 N1 K3 V300"),
    case_of("XlstmMLSTM", "B1 T40 N2 K65 V33"),
    case_of("XlstmMLSTM", "B2 T1 N3 K256 V96", gate_soft_cap=15.0),
    case_of("XlstmMLSTM", "B1 T2 N1 K300 V36"),
    case_of("XlstmMLSTM", "B1 T1 N2 K1024 V20", scale_side=1),
    case_of("XlstmSLSTM", "B9 T5 N1 H1"),
    case_of("XlstmSLSTM", "B2 T4 N1 H300", n_floor=1.0, f_clamp=15.0),
    case_of("XlstmSLSTM", "B1 T3 N1 H800", state_rounding=1),
    case_of("XlstmSLSTM", "B1 T2 N1 H1700"),  # its state is too large for shared memory
    case_of("XlstmSLSTM", "B171 T3 N3 H20"),  # several rows share a block
    case_of("XlstmSLSTM", "B130 T2 N4 H128", state_rounding=1),
    case_of("XlstmCausalConv1d", "B3 T1 D1024 W4", activation=1),
    case_of("XlstmCausalConv1d", "B1 T40 D33 W33"),
    case_of("XlstmCausalConv1d", "B2 T70 D130 W9", activation=1),
    case_of("XlstmCausalConv1d", "B2 T65 D130 W4"),
    case_of("XlstmCausalConv1d", "B2 T47 D520 W4", activation=1),
)
CASES = (*OP_CASES, *SIZES)


def assert_same_bits(got: Inputs, wanted: Inputs, what: str) -> None:
    for name, value in wanted.items():
        assert got[name].tobytes() == value.tobytes(), f"{name} differs: {what}"


@every_tx
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_obeys_the_rule_in_any_order_and_in_place(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    plain = run_cuda(case, poisoned(case, inputs), tx)
    for spec in CATALOG[case.op].outputs:
        assert plain[spec.name].dtype == element(spec, tx)
        assert plain[spec.name].shape == case.shape(spec.dims)
    assert_within_rule(case, inputs, tx, plain)
    in_place = run_cuda(case, inputs, tx, alias=True, order=DESCENDING)
    assert_same_bits(in_place, plain, "states in place, blocks and threads in descending order")
    shuffled = run_cuda(case, inputs, tx, alias=True, order=SHUFFLED, shift=0)
    assert_same_bits(shuffled, plain, "states in place, blocks and threads in shuffled order")


@pytest.mark.parametrize("tx", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_plain_variant_obeys_the_rule(
    case: OpCase, tx: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLES[case.op], PLAIN)
    inputs = make_inputs(case, tx)
    plain = run_cuda(case, poisoned(case, inputs), tx)
    assert_within_rule(case, inputs, tx, plain)
    in_place = run_cuda(case, inputs, tx, alias=True, order=SHUFFLED, shift=0)
    assert_same_bits(in_place, plain, "states in place, in shuffled order")


@pytest.mark.parametrize("order", [ASCENDING, DESCENDING, SHUFFLED])
@pytest.mark.parametrize("case", [c for c in CASES if c.size["T"] < 5], ids=str)
def test_calls_in_place_go_on_with_one_workspace(case: OpCase, order: int) -> None:
    inputs = make_inputs(case, "bfloat16")
    run = CudaRun(case, inputs, "bfloat16", alias=True)
    run.order = order
    run.add_workspace(1)
    for _ in range(3):
        assert run.run() == Status.OK
        wanted = run_cuda(case, inputs, "bfloat16")
        assert_same_bits(run.results(), wanted, "states in place")
        for given, out in CATALOG[case.op].states:
            inputs[given] = wanted[out].astype(np.float64)


@pytest.mark.parametrize("tx", ["bfloat16", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_blocks_that_take_several_units_change_no_bit(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    plain = run_cuda(case, inputs, tx)
    for most, order in ((1, DESCENDING), (2, SHUFFLED)):
        few = run_cuda(case, inputs, tx, alias=True, order=order, most_blocks=most)
        assert_same_bits(few, plain, f"{most} blocks")


@every_tx
@pytest.mark.parametrize("case", [c for c in CASES if c.size["T"] > 2], ids=str)
def test_splits_change_no_bit(case: OpCase, tx: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a variant that takes its steps one by one; test_mlstm_chunk.py has the others."""
    if CudaRun(case, make_inputs(case, tx), tx).variant() == "chunk":
        monkeypatch.setenv("XLSTM_CUDA_MLSTM", "plain")
    inputs = make_inputs(case, tx)
    whole = run_cuda(case, inputs, tx)
    T = case.size["T"]
    cuts = sorted({1, T // 2, T - 1})
    pieces = run_in_pieces(lambda c, x: run_cuda(c, x, tx), case, inputs, cuts)
    assert_same_bits(pieces, whole, "in pieces")


@every_tx
@pytest.mark.parametrize("op", list(CATALOG))
@pytest.mark.parametrize("alias", [False, True])
def test_rows_without_a_step_keep_their_states_bit_for_bit(op: str, tx: str, alias: bool) -> None:
    sizes = {"XlstmMLSTM": "B3 T20 N2 K70 V40", "XlstmSLSTM": "B3 T20 N2 H40"}
    case = case_of(op, sizes.get(op, "B3 T70 D40 W4"))
    case = OpCase(op, case.sizes, lengths=(0, 0, 0))
    inputs = poisoned(case, odd_states(case, make_inputs(case, tx)))
    got = run_cuda(case, inputs, tx, alias=alias)
    for given, out in CATALOG[op].states:
        wanted = inputs[given].astype(got[out].dtype)
        assert got[out].tobytes() == wanted.tobytes(), out
    assert not got[CATALOG[op].outputs[0].name].astype(np.float64).any()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_launches_do_not_grow_with_time(case: OpCase) -> None:
    kernel = CudaRun(case, make_inputs(case), "float32")
    kernel.add_workspace(1)
    assert kernel.run() == Status.OK
    assert 1 <= kernel.launches <= 2


@pytest.mark.parametrize("case", [c for c in OP_CASES if len(c.lengths) > 1], ids=str)
def test_past_the_length_outputs_are_zero(case: OpCase) -> None:
    got = run_cuda(case, poisoned(case, make_inputs(case)), "float32")
    over_time = got[CATALOG[case.op].outputs[0].name]
    beyond = np.arange(case.size["T"]) >= valid_steps(case)[:, None]
    assert beyond.any()
    assert not over_time[beyond].any()


@pytest.mark.parametrize("op", list(CATALOG))
def test_calls_that_cannot_be_right_are_refused(op: str) -> None:
    case = next(c for c in OP_CASES if c.op == op)
    inputs = make_inputs(case)

    def status_of(**changes: object) -> Status:
        kernel = CudaRun(case, inputs, "float32")
        kernel.add_workspace(1)
        for name, value in changes.items():
            setattr(kernel.call, name, value)
        return kernel.run()

    assert status_of() == Status.OK
    assert status_of(op=len(CATALOG)) == Status.BAD_OP
    assert status_of(dtype=len(TX_DTYPES)) == Status.BAD_DTYPE
    assert status_of(lengths_size=7) == Status.BAD_LENGTHS
    kernel = CudaRun(case, inputs, "float32")
    kernel.add_workspace(1)
    for missing in range(len(kernel.schema.inputs)):
        kernel = CudaRun(case, inputs, "float32")
        kernel.add_workspace(1)
        kernel.call.inputs[missing] = None
        kernel.call.packed = 64  # even where the caller says that constants are packed
        assert kernel.run() == Status.NULL_POINTER, missing


def test_a_workspace_too_small_is_refused() -> None:
    case = case_of("XlstmMLSTM", "B1 T3 N2 K8 V8")
    kernel = CudaRun(case, make_inputs(case), "float32")
    assert kernel.workspace_size() > 0
    assert kernel.run() == Status.SMALL_WORKSPACE
    kernel.add_workspace(1)
    kernel.call.workspace_size -= 1
    assert kernel.run() == Status.SMALL_WORKSPACE
    kernel.call.workspace_size += 1
    assert kernel.run() == Status.OK


@pytest.mark.parametrize("op", list(CATALOG))
def test_an_empty_batch_launches_nothing(op: str) -> None:
    case = next(c for c in OP_CASES if c.op == op)
    kernel = CudaRun(case, make_inputs(case), "float32")
    kernel.call.sizes[0] = 0
    assert kernel.run() == Status.OK
    assert kernel.launches == 0
