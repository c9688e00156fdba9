"""The sLSTM with R in registers, on the CPU: which calls it takes, what the rule leaves open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cases import OpCase, make_inputs, poisoned, run_in_pieces
from tests.cuda.on_cpu import DESCENDING, CudaRun, library, needs_compiler, run_cuda
from tests.ops.op_models import assert_within_rule

pytestmark = needs_compiler

HALVES = ("bfloat16", "float16")


def case_of(sizes: str, **given: Any) -> OpCase:
    """``sizes`` like "B2 T65"; attributes and the other fields by name."""
    pairs = tuple((word[0], int(word[1:])) for word in sizes.split())
    own = {k: given.pop(k) for k in list(given) if k in OpCase.__dataclass_fields__}
    return OpCase("XlstmSLSTM", pairs, tuple(given.items()), **own)


CASES = (
    case_of("B1 T70 N2 H128", state="zero"),
    case_of("B3 T20 N2 H64", lengths=(20, 0, 7), n_floor=1.0, f_clamp=15.0),
    case_of("B5 T30 N1 H104", gate_scale=6.0),
    case_of("B67 T4 N8 H40"),  # four rows in a block
    case_of("B70 T4 N4 H128", state_rounding=1, lengths=(3,) * 35 + (4,) * 35),
    case_of("B1 T600 N2 H32", gate_scale=0.0, forget_bias=12.0),  # forgets next to nothing
)


@pytest.fixture(autouse=True, params=["nearest", "truncated"])
def _sums(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tensor cores round their sums one way or another."""
    library().xlstm_emulator_truncates(request.param == "truncated")
    yield
    library().xlstm_emulator_truncates(0)


def assert_same_bits(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        assert got[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("tx", HALVES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_sums_of_either_kind_obey_the_rule(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    assert CudaRun(case, inputs, tx).variant() == "registers"
    got = run_cuda(case, poisoned(case, inputs), tx, shift=0)
    assert_within_rule(case, inputs, tx, got)
    again = run_cuda(case, inputs, tx, alias=True, order=DESCENDING)
    assert_same_bits(again, got)
    T = case.size["T"]
    pieces = run_in_pieces(lambda c, x: run_cuda(c, x, tx), case, inputs, [1, T // 2])
    assert_same_bits(pieces, got)


@pytest.mark.parametrize("largest", [60.0, 3e3, 1e6])
def test_weights_beyond_float16_are_scaled_into_it(largest: float) -> None:
    case = case_of("B2 T3 N1 H24")
    inputs = make_inputs(case, "bfloat16")
    bits = np.float32(largest).view(np.uint32) & np.uint32(0xFFFF0000)
    inputs["R"][0, 5, 1, 7] = bits.view(np.float32)
    assert_within_rule(case, inputs, "bfloat16", run_cuda(case, inputs, "bfloat16"))


@pytest.mark.parametrize("slot", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_gates_beyond_all_numbers_do_what_they_do_to_the_plain_kernel(
    slot: int, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of("B3 T4 N1 H8")
    inputs = make_inputs(case, "bfloat16")
    inputs["gates"][1, 2, slot] = value
    got = run_cuda(case, inputs, "bfloat16")
    monkeypatch.setenv("XLSTM_CUDA_SLSTM", "plain")
    wanted = run_cuda(case, inputs, "bfloat16")
    for name, array in wanted.items():
        exact = array.astype(np.float64)
        close = np.isclose(
            got[name].astype(np.float64), exact, rtol=2e-2, atol=1e-5, equal_nan=True
        )
        assert close.all(), name


@pytest.mark.parametrize("tx", ["float32", "float64"])
def test_wider_types_are_left_to_others(tx: str) -> None:
    case = case_of("B1 T2 N1 H16")
    assert CudaRun(case, make_inputs(case, tx), tx).variant() == "plain"
