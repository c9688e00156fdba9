"""The custom-op library in ONNX Runtime: numbers by the rule, the same bits however it is run."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from tests.cases import (
    NUMPY_DTYPES,
    OP_CASES,
    Array,
    Inputs,
    OpCase,
    cases_of,
    make_inputs,
    odd_states,
    poisoned,
    run_in_pieces,
    valid_steps,
)
from tests.ops.op_models import assert_within_rule, element_type, model_bytes, run_session
from tests.plugins.ort_library import (
    PACKED,
    executed_ops,
    kernel_model,
    make_session,
    run_aliased,
    run_elsewhere,
    run_kernel,
)
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES

OTHERS = [d for d in os.environ.get("XLSTM_ORT_DIRS", "").split(os.pathsep) if d]

every_tx = pytest.mark.parametrize("tx", TX_DTYPES)
wide_tx = pytest.mark.parametrize("tx", ["float32", "float64"])
every_op = pytest.mark.parametrize("op", list(CATALOG))


def large(op: str, sizes: str, **attributes: float) -> OpCase:
    pairs = tuple((word[0], int(word[1:])) for word in sizes.split())
    return OpCase(op, pairs, tuple(attributes.items()))


LARGE = (
    large("XlstmMLSTM", "B1 T130 N2 K128 V256"),
    large("XlstmMLSTM", "B1 T1 N4 K256 V256"),
    large("XlstmSLSTM", "B2 T50 N4 H64"),
    large("XlstmCausalConv1d", "B2 T600 D256 W4", activation=1),
)
"""Worth more than one thread."""


def assert_same_bits(got: Inputs, wanted: Inputs) -> None:
    for name, value in wanted.items():
        assert got[name].tobytes() == value.tobytes(), f"{name} differs"


@every_tx
@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_kernel_obeys_the_rule(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    got = run_kernel(case, inputs, tx)
    for spec in CATALOG[case.op].outputs:
        assert got[spec.name].dtype == NUMPY_DTYPES[element_type(spec, tx)]
        assert got[spec.name].shape == case.shape(spec.dims)
    assert_within_rule(case, inputs, tx, got)


@every_op
@every_tx
def test_kernel_wins_over_the_body(op: str, tx: str, tmp_path: Path) -> None:
    case = cases_of(op)[1]
    ran = {}
    for native in (True, False):
        session = make_session(model_bytes(case, tx), native=native, profile=tmp_path / "profile")
        run_session(session, op, make_inputs(case, tx), tx)
        ran[native] = executed_ops(session)
    assert ran[True] == [op]
    assert op not in ran[False], "the body did not run without the library"
    assert len(ran[False]) > 1


# --- the same bits however it is run -----------------------------------------------------------


@every_tx
@pytest.mark.parametrize("case", [*OP_CASES, *LARGE], ids=str)
def test_threads_aliases_and_constants_change_no_bit(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    plain = run_kernel(case, inputs, tx)
    assert_same_bits(run_kernel(case, inputs, tx, threads=2), plain)
    assert_same_bits(run_aliased(case, inputs, tx), plain)
    if case.op in PACKED:
        name = PACKED[case.op]
        session = make_session(kernel_model(case, tx, constants={name: inputs[name]}))
        assert name not in {i.name for i in session.get_inputs()}
        assert_same_bits(run_session(session, case.op, inputs, tx), plain)


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_number_of_parts_changes_no_bit(case: OpCase) -> None:
    inputs = make_inputs(case)
    plain = run_kernel(case, inputs, "float32")
    for parts in (None, 1, 3, 1000):
        session = make_session(kernel_model(case, "float32"), threads=2, parts=parts)
        assert_same_bits(run_session(session, case.op, inputs, "float32"), plain)


def chunk_cuts(case: OpCase) -> list[int]:
    """Where a sequence may be cut: between chunks; anywhere where there are none."""
    step = int(case.attribute_values().get("chunk_size", 1))
    every = list(range(step, case.size["T"], step))
    return every[len(every) // 3 :: max(1, len(every) // 4)]


@wide_tx
@pytest.mark.parametrize("case", [c for c in OP_CASES if chunk_cuts(c)], ids=str)
def test_split_between_chunks_changes_no_bit(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)

    def run(piece: OpCase, given: Inputs) -> Inputs:
        return run_kernel(piece, given, tx)

    assert_same_bits(run_in_pieces(run, case, inputs, chunk_cuts(case)), run(case, inputs))


@every_tx
@pytest.mark.parametrize("case", [c for c in OP_CASES if c.lengths != (-1,)], ids=str)
def test_steps_beyond_the_length_are_not_read(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    got = run_kernel(case, poisoned(case, inputs), tx)
    assert_same_bits(got, run_kernel(case, inputs, tx))
    beyond = np.arange(case.size["T"]) >= valid_steps(case)[:, None]
    over_time = got[CATALOG[case.op].outputs[0].name]
    assert not over_time[beyond].astype(np.float64).any()


@every_op
@every_tx
def test_length_zero_returns_the_states_bit_for_bit(op: str, tx: str) -> None:
    for case in cases_of(op)[1::4]:
        empty = replace(case, lengths=(0,))
        inputs = odd_states(empty, make_inputs(empty, tx))
        plain, aliased = run_kernel(empty, inputs, tx), run_aliased(empty, inputs, tx)
        assert_same_bits(aliased, plain)
        for name, out in CATALOG[op].states:
            assert plain[out].tobytes() == inputs[name].astype(plain[out].dtype).tobytes()


@every_op
@every_tx
def test_empty_batch(op: str, tx: str) -> None:
    case = cases_of(op)[1]
    none = replace(case, sizes=tuple((d, 0 if d == "B" else n) for d, n in case.sizes))
    inputs = make_inputs(case, tx)
    rows = [spec.name for spec in CATALOG[op].inputs if spec.dims[0] == "B"]
    inputs.update({name: inputs[name][:0] for name in rows})
    for lengths in ([], [-1]):
        got = run_kernel(none, {**inputs, "lengths": np.array(lengths, np.int32)}, tx)
        for spec in CATALOG[op].outputs:
            assert got[spec.name].shape == none.shape(spec.dims)


@every_op
def test_many_threads_share_one_session(op: str) -> None:
    cases = [replace(c, attributes=()) for c in (*cases_of(op), *LARGE) if c.op == op]
    cases = [c for c in cases if c.size["T"] < 200]
    session = make_session(kernel_model(cases[0], "float32"), threads=2)
    jobs = [(c, make_inputs(c, seed=seed)) for seed in range(3) for c in cases]
    wanted = [run_session(session, op, inputs, "float32") for _, inputs in jobs]

    def work(worker: int) -> None:
        order = np.random.default_rng(worker).permutation(len(jobs))
        for index in order:
            got = run_session(session, op, jobs[index][1], "float32")
            assert_same_bits(got, wanted[index])

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, worker) for worker in range(8)]:
            done.result()


@every_tx
@pytest.mark.parametrize("op", list(PACKED))
def test_concurrent_runs_with_a_packed_constant(op: str, tx: str) -> None:
    case = cases_of(op)[1]
    inputs, name = make_inputs(case, tx), PACKED[op]
    session = make_session(kernel_model(case, tx, constants={name: inputs[name]}))
    states = [{**make_inputs(case, tx, seed=s), name: inputs[name]} for s in range(8)]
    wanted = [run_kernel(case, s, tx) for s in states]

    def work(worker: int) -> dict[str, Array]:
        for _ in range(20):
            got = run_session(session, op, states[worker], tx)
            assert_same_bits(got, wanted[worker])
        return got

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


# --- other versions of ONNX Runtime ------------------------------------------------------------


@pytest.mark.parametrize("runtime", OTHERS, ids=lambda r: Path(r).name)
def test_other_runtimes_give_the_same_bits(runtime: str, tmp_path: Path) -> None:
    jobs = [(c, make_inputs(c, tx), tx) for c in OP_CASES for tx in TX_DTYPES]
    version, results, ran = run_elsewhere(runtime, jobs, tmp_path)
    assert version != ort.__version__
    assert version in runtime, "another runtime than asked for ran"
    assert sorted(ran) == sorted(list(CATALOG) * len(TX_DTYPES)), "a body ran, not the kernel"
    for (case, inputs, tx), got in zip(jobs, results, strict=True):
        assert_same_bits(got, run_kernel(case, inputs, tx))


@pytest.mark.skipif(not OTHERS, reason="XLSTM_ORT_DIRS names no other ONNX Runtime")
def test_oldest_and_newest_supported_are_here() -> None:
    assert {Path(d).name.rpartition("-")[2] for d in OTHERS} >= {"1.20.1", "1.23.2", "1.32.0"}
