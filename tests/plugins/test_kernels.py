"""The CPU kernels through the C API, held to the one rule of ``validation.tolerance``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tests.cases import (
    OP_CASES,
    Array,
    Inputs,
    OpCase,
    cases_of,
    make_inputs,
    odd_states,
    poisoned,
    rounded,
    rows_of,
    run_in_pieces,
    valid_steps,
)
from tests.ops.op_models import assert_rows_alone, assert_within_rule
from tests.plugins.kernels import ALIGNMENT, KernelRun, Pool, element, isa, run_kernel
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES

SHORT = [case for case in OP_CASES if case.size["T"] < 200]
RAGGED = [case for case in OP_CASES if len(case.lengths) > 1]
LONG = [case for case in OP_CASES if case.size["T"] > 2]

every_tx = pytest.mark.parametrize("tx", TX_DTYPES)
wide_tx = pytest.mark.parametrize("tx", ["float32", "float64"])
every_op = pytest.mark.parametrize("op", list(CATALOG))


def over_time(case: OpCase) -> str:
    return CATALOG[case.op].outputs[0].name


def assert_same_bits(got: Inputs, wanted: Inputs) -> None:
    for name, value in wanted.items():
        assert got[name].tobytes() == value.tobytes(), f"{name} differs"


def mlstm(sizes: str, **given: float) -> OpCase:
    return _case("XlstmMLSTM", sizes, given)


def slstm(sizes: str, **given: float) -> OpCase:
    return _case("XlstmSLSTM", sizes, given)


def conv(sizes: str, **given: float) -> OpCase:
    return _case("XlstmCausalConv1d", sizes, given)


def _case(op: str, sizes: str, attributes: dict[str, float]) -> OpCase:
    pairs = tuple((word[0], int(word[1:])) for word in sizes.split())
    return OpCase(op, pairs, tuple(attributes.items()))


# --- the numbers -------------------------------------------------------------------------------


@every_tx
@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_kernel_obeys_the_rule(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    got = run_kernel(case, inputs, tx)
    for spec in CATALOG[case.op].outputs:
        assert got[spec.name].dtype == element(spec, tx)
        assert got[spec.name].shape == case.shape(spec.dims)
    assert_within_rule(case, inputs, tx, got)


SIZES = (
    mlstm("B1 T130 N2 K256 V512"),
    mlstm("B1 T1 N8 K256 V512"),
    mlstm("B2 T3 N2 K256 V512", chunk_size=2),
    mlstm("B1 T96 N1 K512 V512"),
    mlstm("B1 T65 N2 K128 V256", scale_side=1),
    mlstm("B1 T65 N1 K100 V200"),
    mlstm("B1 T70 N2 K257 V129"),
    mlstm("B2 T70 N3 K17 V9"),
    mlstm("B1 T70 N1 K64 V1"),
    mlstm("B1 T70 N2 K64 V3"),
    mlstm("B1 T70 N2 K1 V64"),
    mlstm("B1 T70 N1 K1 V1"),
    mlstm("B1 T70 N2 K3 V300", gate_soft_cap=15.0),
    mlstm("B1 T70 N2 K300 V3", eps=1e-3),
    *(mlstm("B2 T300 N2 K33 V40", chunk_size=size) for size in (1, 7, 16, 48, 100, 256, 10**6)),
    *(mlstm("B1 T130 N1 K160 V160", chunk_size=size) for size in (1, 48, 100, 2**31 - 1)),
    *(mlstm(f"B1 T{steps} N2 K96 V96", chunk_size=16) for steps in (15, 16, 17, 31, 32)),
    slstm("B9 T20 N1 H1"),
    slstm("B2 T20 N5 H1"),
    slstm("B2 T20 N2 H3"),
    slstm("B3 T20 N1 H65"),
    slstm("B1 T20 N4 H160", f_clamp=15.0),
    slstm("B17 T5 N2 H40", n_floor=1.0),
    slstm("B1 T20 N1 H512"),
    slstm("B2 T20 N2 H64", state_rounding=1, n_floor=1.0, f_clamp=15.0),
    slstm("B2 T20 N2 H160", state_rounding=1),
    conv("B2 T70 D1 W1"),
    conv("B2 T70 D3 W2", activation=1),
    conv("B1 T2 D130 W9", activation=1),
    conv("B3 T1 D1024 W4", activation=1),
    conv("B1 T40 D33 W33"),
)


@every_tx
@pytest.mark.parametrize("case", SIZES, ids=str)
def test_any_size_obeys_the_rule(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    assert_within_rule(case, inputs, tx, run_kernel(case, inputs, tx))


# --- the same bits however it is called --------------------------------------------------------


@every_tx
@pytest.mark.parametrize("case", [*OP_CASES, *SIZES], ids=str)
def test_threads_aliases_packing_and_alignment_change_no_bit(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    plain = run_kernel(case, inputs, tx)
    for threads in (2, 5):
        assert_same_bits(run_kernel(case, inputs, tx, threads=threads), plain)
        given = {"alias": True, "packed": True, "shift": 0}
        assert_same_bits(run_kernel(case, inputs, tx, threads=threads, **given), plain)
    assert_same_bits(run_kernel(case, inputs, tx, alias=True), plain)
    assert_same_bits(run_kernel(case, inputs, tx, packed=True), plain)
    assert_same_bits(run_kernel(case, inputs, tx, shift=0), plain)
    assert_same_bits(run_kernel(case, inputs, tx, pool=Pool(1)), plain)


def even_cuts(case: OpCase) -> list[list[int]]:
    """Cuts where the bits must not change: between chunks, or anywhere where there are none."""
    steps, step = case.size["T"], int(case.attribute_values().get("chunk_size", 1))
    every = list(range(step, steps, step))
    return [every, every[:1], every[-1:], every[len(every) // 3 :: 2]] if every else []


JOINED = [case for case in (*LONG, *SIZES) if even_cuts(case) and case.size["T"] < 500]


@every_tx
@pytest.mark.parametrize("case", JOINED, ids=str)
def test_a_split_between_chunks_changes_no_bit(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    whole = run_kernel(case, inputs, tx)
    for threads, cuts in zip((1, 2, 5, 1), even_cuts(case), strict=True):
        run = partial(run_kernel, tx=tx, threads=threads, alias=threads > 1)
        assert_same_bits(run_in_pieces(run, case, inputs, cuts), whole)


@wide_tx
@pytest.mark.parametrize("case", [case for case in LONG if case.size["T"] < 200], ids=str)
def test_a_split_anywhere_obeys_the_rule(case: OpCase, tx: str) -> None:
    inputs, steps = make_inputs(case, tx), case.size["T"]
    for cuts in ([1], [steps // 3, steps // 2], list(range(1, steps))):
        pieces = run_in_pieces(partial(run_kernel, tx=tx), case, inputs, cuts)
        assert_within_rule(case, inputs, tx, pieces)


@pytest.mark.parametrize("case", RAGGED, ids=str)
def test_a_ragged_row_is_that_row_alone(case: OpCase) -> None:
    inputs = make_inputs(case)
    batch = run_kernel(case, inputs, "float32", threads=2)
    assert_rows_alone(case, inputs, batch)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("lengths", [(9, 9), (9, 0, 9), (0, 9, 3), (9, 8, 7, 6), (9, 9, 9, 9, 9),
                                     (2, 9, 9, 0, 9), (9,) * 7, (1, 9, 2, 9, 3, 9, 0, 9, 9)],
                         ids=str)  # fmt: skip
def test_slstm_rows_in_company_have_the_bits_they_have_alone(
    lengths: tuple[int, ...], heads: int, threads: int
) -> None:
    """However many rows share the reading of R."""
    sizes = (("B", len(lengths)), ("T", 9), ("N", heads), ("H", 24))
    case = OpCase("XlstmSLSTM", sizes, lengths=lengths)
    inputs = make_inputs(case)
    batch = run_kernel(case, inputs, "float32", threads=threads)
    for alone, own, got in rows_of(case, inputs, batch):
        assert_same_bits(got, run_kernel(alone, own, "float32"))


# --- lengths -----------------------------------------------------------------------------------


@every_tx
@pytest.mark.parametrize("case", RAGGED, ids=str)
def test_nothing_leaks_from_beyond_the_length(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    clean = run_kernel(case, inputs, tx)
    assert_same_bits(run_kernel(case, poisoned(case, inputs), tx, threads=2), clean)
    beyond = np.arange(case.size["T"]) >= valid_steps(case)[:, None]
    assert not clean[over_time(case)][beyond].view(np.uint8).any(), "not +0.0"


@every_tx
@pytest.mark.parametrize("alias", [False, True])
@pytest.mark.parametrize("case", [*SHORT, *SIZES[:5]], ids=str)
def test_length_zero_returns_the_state_bit_for_bit(case: OpCase, alias: bool, tx: str) -> None:
    empty = replace(case, lengths=(0,))
    inputs = poisoned(empty, odd_states(empty, make_inputs(empty, tx)))
    results = run_kernel(empty, inputs, tx, alias=alias)
    assert not results[over_time(case)].any()
    for before, after in CATALOG[case.op].states:
        given = inputs[before].astype(results[after].dtype)
        assert results[after].tobytes() == given.tobytes(), after


@pytest.mark.parametrize("length", [-1, -7, -(2**31), 5, 2**31 - 1])
@pytest.mark.parametrize("steps", [1, 5])
@every_op
def test_one_length_serves_every_row(op: str, steps: int, length: int) -> None:
    case = replace(next(c for c in cases_of(op) if c.size["B"] > 1), lengths=(length,))
    case = replace(case, sizes=tuple((d, steps if d == "T" else n) for d, n in case.sizes))
    inputs = make_inputs(case)
    one = run_kernel(case, inputs, "float32")
    inputs["lengths"] = np.full(case.size["B"], -1, np.int32)
    assert_same_bits(one, run_kernel(case, inputs, "float32"))


@every_tx
@every_op
@pytest.mark.parametrize("lengths", [(), (3,)], ids=["one a row", "one for all"])
def test_an_empty_batch_is_done_at_once(op: str, tx: str, lengths: tuple[int, ...]) -> None:
    full = next(c for c in cases_of(op) if c.size["T"] == 7)
    sizes = tuple((d, 0 if d == "B" else n) for d, n in full.sizes)
    inputs = {
        spec.name: a[:0] if spec.dims[0] == "B" else a
        for spec, a in zip(CATALOG[op].inputs, make_inputs(full, tx).values(), strict=True)
    }
    inputs["lengths"] = np.array(lengths, np.int32)
    results = run_kernel(replace(full, sizes=sizes), inputs, tx, threads=2)
    assert all(value.size == 0 for value in results.values())


# --- attributes --------------------------------------------------------------------------------

ATTRIBUTES = (
    ("XlstmMLSTM", "gate_soft_cap", 2.0),
    ("XlstmMLSTM", "eps", 0.1),
    ("XlstmMLSTM", "scale_side", 1),
    ("XlstmSLSTM", "n_floor", 3.0),
    ("XlstmSLSTM", "f_clamp", 0.5),
    ("XlstmSLSTM", "state_rounding", 1),
    ("XlstmCausalConv1d", "activation", 1),
)


@pytest.mark.parametrize("steps", [1, 33])
@pytest.mark.parametrize(("op", "name", "value"), ATTRIBUTES)
def test_each_attribute_alone_has_the_effect_the_reference_says(
    op: str, name: str, value: float, steps: int
) -> None:
    sizes = {"B": 1, "T": steps, "N": 2, "K": 32, "V": 32, "H": 32, "D": 32, "W": 4}
    used = {letter for spec in CATALOG[op].inputs for letter in spec.dims}
    plain = OpCase(op, tuple((d, s) for d, s in sizes.items() if d in used))
    changed = replace(plain, attributes=((name, value),))
    inputs = make_inputs(plain)
    if "n" in inputs:
        inputs["n"] = rounded(0.5 + np.abs(inputs["n"]), "float32")  # an empty cell forgets nothing
    got = run_kernel(changed, inputs, "float32")
    assert_within_rule(changed, inputs, "float32", got)
    with pytest.raises(AssertionError, match="float32"):
        assert_within_rule(plain, inputs, "float32", got)


# --- extremes ----------------------------------------------------------------------------------

GATES: dict[str, tuple[float, float]] = {
    "+-30": (30, 30), "+-80": (80, 80), "+-200": (200, 200), "i-80": (-80, 80), "f-80": (80, -80),
    "both-80": (-80, -80), "both+80": (80, 80), "both-1000": (-1000, -1000),
}  # fmt: skip
EXTREME = (mlstm("B1 T130 N3 K8 V8"), mlstm("B1 T130 N1 K64 V64"), slstm("B1 T130 N3 H8"))


def with_gates(case: OpCase, gates: str, tx: str = "float32") -> Inputs:
    """Uncapped pre-activations of one size: random signs for "+-", else all alike."""
    inputs = make_inputs(case, tx)
    i, f = GATES[gates]

    def signs(array: Array) -> Array:
        return np.sign(array) if gates.startswith("+-") else np.ones_like(array)

    if case.op == "XlstmSLSTM":
        inputs["gates"] = np.array([i, f, 3.0, -12.0])[:, None, None] * signs(inputs["gates"])
    else:
        inputs["i"], inputs["f"] = i * signs(inputs["i"]), f * signs(inputs["f"] - 3)
    return inputs


@wide_tx
@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("case", EXTREME, ids=str)
def test_extreme_gates_obey_the_rule(case: OpCase, gates: str, tx: str) -> None:
    inputs = with_gates(case, gates, tx)
    assert_within_rule(case, inputs, tx, run_kernel(case, inputs, tx))


ENDLESS = (
    mlstm("B1 T65536 N2 K4 V4"),
    mlstm("B1 T65536 N1 K64 V64"),
    mlstm("B1 T65536 N1 K16 V16", chunk_size=1024),
    slstm("B1 T65536 N2 H4"),
    slstm("B1 T65536 N1 H32", n_floor=1.0),
)


@every_tx
@pytest.mark.parametrize("gates", ["+-80", "i-80", "f-80", "both-80", "both+80"])
@pytest.mark.parametrize("case", ENDLESS, ids=str)
def test_extreme_gates_stay_finite_over_65536_steps(case: OpCase, gates: str, tx: str) -> None:
    for name, value in run_kernel(case, with_gates(case, gates, tx), tx, threads=2).items():
        assert np.isfinite(value.astype(np.float64)).all(), name


@pytest.mark.parametrize("case", [mlstm("B1 T16384 N2 K4 V4"), slstm("B1 T16384 N2 H4")], ids=str)
def test_thousands_of_extreme_gates_obey_the_rule(case: OpCase) -> None:
    inputs = with_gates(case, "+-80")
    assert_within_rule(case, inputs, "float32", run_kernel(case, inputs, "float32"))


def test_silu_keeps_its_digits_far_below_zero() -> None:
    case = next(c for c in cases_of("XlstmCausalConv1d") if c.attribute_values()["activation"])
    inputs = make_inputs(case)
    inputs["b"] = rounded(inputs["b"] - 15.0, "float32")
    assert_within_rule(case, inputs, "float32", run_kernel(case, inputs, "float32"))


# --- the workspace -----------------------------------------------------------------------------


@every_tx
@pytest.mark.parametrize("case", [mlstm("B2 T1 N2 K40 V40"), slstm("B2 T1 N2 H40"),
                                  conv("B2 T1 D40 W4")], ids=str)  # fmt: skip
def test_the_workspace_grows_with_threads_and_never_with_time(case: OpCase, tx: str) -> None:
    kernel = KernelRun(case, make_inputs(case, tx), tx)

    def asked(steps: int, threads: int) -> int:
        kernel.call.sizes[1] = steps
        return kernel.workspace_size(threads)

    by_threads = [asked(4096, threads) for threads in (1, 2, 8)]
    assert by_threads == sorted(by_threads)
    assert asked(2**30, 2) == asked(4096, 2) >= asked(1, 2)


@every_tx
@pytest.mark.parametrize("case", [slstm("B2 T1 N2 H40"), conv("B2 T1 D40 W4")], ids=str)
def test_a_packed_constant_needs_no_room_in_the_workspace(case: OpCase, tx: str) -> None:
    kernel = KernelRun(case, make_inputs(case, tx), tx)
    unpacked = kernel.workspace_size(2)
    kernel.pack()
    assert kernel.packed is not None
    room = -(-kernel.packed.nbytes // ALIGNMENT) * ALIGNMENT
    assert kernel.workspace_size(2) == unpacked - room


def test_the_instruction_set_is_the_one_asked_for() -> None:
    status, name = isa()
    assert (status, bool(name)) == (0, True)
