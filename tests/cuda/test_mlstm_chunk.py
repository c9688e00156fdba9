"""The mLSTM in chunks, on the CPU: which calls it takes, and what the rule leaves open of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cases import Inputs, OpCase, make_inputs, poisoned, run_in_pieces
from tests.cuda.on_cpu import DESCENDING, CudaRun, library, needs_compiler, run_cuda
from tests.ops.op_models import assert_within_rule
from tests.plugins.kernels import Status

pytestmark = needs_compiler

L = 64
TX = "bfloat16"
SHUFFLED = 5
every_half = pytest.mark.parametrize("tx", [TX, "float16"])


def case_of(sizes: str, **given: Any) -> OpCase:
    """``sizes`` like "B2 T65"; attributes and the other fields by name."""
    pairs = tuple((word[0], int(word[1:])) for word in sizes.split())
    own = {k: given.pop(k) for k in list(given) if k in OpCase.__dataclass_fields__}
    return OpCase("XlstmMLSTM", pairs, tuple(given.items()), **own)


CASES = (
    case_of("B1 T17 N1 K16 V16"),
    case_of("B1 T64 N2 K64 V64", scale_side=1, state="zero"),
    case_of("B2 T65 N3 K96 V192", gate_soft_cap=15.0, lengths=(65, 1)),
    case_of("B1 T130 N1 K272 V144", scale_side=1, gate_soft_cap=15.0),
    case_of("B4 T200 N2 K80 V48", eps=1e-3, gate_scale=9.0, lengths=(200, 0, 64, -1)),
    case_of("B1 T450 N3 K48 V272"),  # slices of two heads, blocks of all their columns
    case_of("B2 T200 N1 K32 V64", gate_scale=300.0),  # sums of log f in the ten thousands
    case_of("B2 T300 N1 K64 V32", input_bias=-10.0),
    case_of("B1 T1000 N1 K16 V32", gate_scale=0.0, forget_bias=12.0),  # forgets next to nothing
)


@pytest.fixture(autouse=True, params=["nearest", "truncated"])
def _sums(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tensor cores round their sums one way or another."""
    library().xlstm_emulator_truncates(request.param == "truncated")
    yield
    library().xlstm_emulator_truncates(0)


@pytest.fixture(autouse=True)
def _forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLSTM_CUDA_MLSTM", "chunk")


def assert_same_bits(got: Inputs, wanted: Inputs) -> None:
    for name, value in wanted.items():
        assert got[name].tobytes() == value.tobytes(), name


@every_half
@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_in_any_order_and_in_place_and_wherever_operands_lie(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    got = run_cuda(case, poisoned(case, inputs), tx, shift=0)
    assert_within_rule(case, inputs, tx, got)
    assert_same_bits(run_cuda(case, inputs, tx, alias=True, order=DESCENDING), got)
    few = run_cuda(case, inputs, tx, alias=True, order=SHUFFLED, most_blocks=2, shift=0)
    assert_same_bits(few, got)


@every_half
@pytest.mark.parametrize("scale", [1e-7, 1e-4, 1e6, 1e12])
def test_states_far_from_one(scale: float, tx: str) -> None:
    """float16 alone would overflow, or lose what is small."""
    case = case_of("B1 T100 N2 K48 V160", input_bias=-20.0, forget_bias=8.0)
    inputs = make_inputs(case, tx)
    for name in ("C", "n"):
        inputs[name] = (inputs[name] * scale).astype(np.float32).astype(np.float64)
    assert_within_rule(case, inputs, tx, run_cuda(case, inputs, tx))


@every_half
@pytest.mark.parametrize("case", [c for c in CASES if c.size["T"] > L], ids=str)
def test_cuts_between_chunks_change_no_bit(case: OpCase, tx: str) -> None:
    """Their lengths are at least what the variant takes."""
    inputs = make_inputs(case, tx)
    cuts = [t for t in range(L, case.size["T"], L) if case.size["T"] - t >= 17]
    pieces = run_in_pieces(lambda c, x: run_cuda(c, x, tx), case, inputs, cuts)
    assert_same_bits(pieces, run_cuda(case, inputs, tx))


@pytest.mark.parametrize("case", [c for c in CASES if c.size["T"] > L], ids=str)
def test_other_cuts_obey_the_rule(case: OpCase) -> None:
    inputs = make_inputs(case, TX)
    cuts = [20, 42]
    assert_within_rule(
        case, inputs, TX, run_in_pieces(lambda c, x: run_cuda(c, x, TX), case, inputs, cuts)
    )


def test_a_gate_that_forgets_everything_starts_anew() -> None:
    """log f of -inf: nothing before it counts, in its chunk or any other."""
    case = case_of("B1 T150 N1 K32 V32")
    inputs = make_inputs(case, TX)
    steps = (5, 70, 71, 127, 128)
    for step in steps:
        inputs["f"][:, step] = -np.inf
    got = run_cuda(case, inputs, TX)
    start = {name: np.zeros_like(a) if name in ("C", "n", "m") else a for name, a in inputs.items()}
    for name in ("q", "k", "v", "i", "f"):
        start[name] = inputs[name][:, steps[-1] :]
    wanted = run_cuda(case_of("B1 T22 N1 K32 V32"), start, TX)
    assert_same_bits({"h": got["h"][:, steps[-1] :], "C_out": got["C_out"]},
                     {"h": wanted["h"], "C_out": wanted["C_out"]})  # fmt: skip
    assert np.isfinite(got["h"].astype(np.float64)).all()


def test_a_nan_gate_is_nan_from_its_step_on() -> None:
    case = case_of("B1 T150 N1 K32 V32")
    inputs = make_inputs(case, TX)
    inputs["f"][:, 70] = np.nan
    h = run_cuda(case, inputs, TX)["h"].astype(np.float64)
    assert np.isfinite(h[:, :70]).all()
    assert np.isnan(h[:, 70:]).all()


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        ("B1 T17 N1 K16 V16", True),
        ("B1 T16 N1 K16 V16", False),  # the other variants take it in one pass over the state
        ("B1 T64 N1 K24 V16", False),
        ("B1 T64 N1 K16 V24", False),
        ("B1 T64 N1 K1024 V1024", True),
    ],
)
@every_half
def test_which_calls_it_takes(sizes: str, taken: bool, tx: str) -> None:
    case = case_of(sizes)
    run = CudaRun(case, make_inputs(case, tx), tx)
    assert run.variant() == ("chunk" if taken else Status.UNAVAILABLE)
    assert CudaRun(case, make_inputs(case), "float32").variant() == Status.UNAVAILABLE


def test_workspace_never_shrinks() -> None:
    def bytes_of(B: int, T: int) -> int:
        case = case_of(f"B{B} T{T} N8 K256 V512")
        run = CudaRun(case_of("B1 T17 N1 K16 V16"), make_inputs(case_of("B1 T17 N1 K16 V16")), TX)
        for index, size in enumerate(case.size.values()):
            run.call.sizes[index] = size
        return run.workspace_size()

    for T in (1, 16, 17, 100, 2048, 4095):
        sizes = [bytes_of(B, T) for B in (1, 2, 5, 8, 32, 33)]
        assert sizes == sorted(sizes)
    for B in (1, 3, 32):
        sizes = [bytes_of(B, T) for T in (1, 16, 17, 64, 1000, 2048, 65536)]
        assert sizes == sorted(sizes)
    assert bytes_of(32, 2048) < 400 << 20
    assert bytes_of(64, 1) < 1 << 20  # a step has no chunks to keep
