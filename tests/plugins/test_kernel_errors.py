"""Every bad call gets the status that says why, and nothing is written."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from tests.cases import OpCase, make_inputs
from tests.plugins.kernels import NAN_BYTE, KernelRun, Pool, Status, library, message
from xlstm_export.ops.catalog import CATALOG

CASES = {
    "XlstmMLSTM": OpCase(
        "XlstmMLSTM", (("B", 3), ("T", 5), ("N", 2), ("K", 8), ("V", 8)), lengths=(3, -1, 5)
    ),
    "XlstmSLSTM": OpCase(
        "XlstmSLSTM", (("B", 3), ("T", 5), ("N", 2), ("H", 8)), lengths=(3, -1, 5)
    ),
    "XlstmCausalConv1d": OpCase(
        "XlstmCausalConv1d", (("B", 3), ("T", 5), ("D", 8), ("W", 4)), lengths=(3, -1, 5)
    ),
}

Change = Callable[[KernelRun], None]
every_op = pytest.mark.parametrize("op", CASES)


def good_call(op: str, tx: str = "float32", threads: int = 1) -> KernelRun:
    kernel = KernelRun(CASES[op], make_inputs(CASES[op], tx), tx)
    kernel.add_workspace(threads)
    return kernel


def assert_refused(kernel: KernelRun, status: Status, pool: Pool | None = None) -> None:
    """``status`` comes, and every output is as it was: poison."""
    assert kernel.run(pool) == status
    for name, buffer in kernel.outputs.items():
        assert (buffer.bytes == NAN_BYTE).all(), f"{name} was written"


@dataclass(frozen=True)
class Bad:
    """A way to spoil a good call of any operator."""

    name: str
    status: Status
    change: Change


def set_field(name: str, value: int) -> Change:
    return lambda kernel: setattr(kernel.call, name, value)


def set_size(index: int, value: int) -> Change:
    def change(kernel: KernelRun) -> None:
        kernel.call.sizes[index] = value

    return change


def set_attribute(index: int, value: float) -> Change:
    def change(kernel: KernelRun) -> None:
        kernel.call.attributes[index] = value

    return change


FIELDS = [
    *(Bad(f"op {n}", Status.BAD_OP, set_field("op", n)) for n in (-1, 3, 2**31 - 1, -(2**31))),
    *(Bad(f"dtype {n}", Status.BAD_DTYPE, set_field("dtype", n)) for n in (-1, 4, 2**31 - 1)),
    *(
        Bad(f"lengths {n}", Status.BAD_LENGTHS, set_field("lengths_size", n))
        for n in (0, 2, 4, -1, -3, 2**62)
    ),
    *(Bad(f"B {n}", Status.BAD_SIZE, set_size(0, n)) for n in (-1, -(2**63))),
    *(Bad(f"T {n}", Status.BAD_SIZE, set_size(1, n)) for n in (0, -1, -(2**62))),
    *(Bad(f"size 2 {n}", Status.BAD_SIZE, set_size(2, n)) for n in (0, -1, -(2**63))),
    *(Bad(f"size 3 {n}", Status.BAD_SIZE, set_size(3, n)) for n in (0, -1, -(2**63))),
    *(Bad(f"T {n}", Status.TOO_LARGE, set_size(1, n)) for n in (2**60, 2**62, 2**63 - 1)),
    *(Bad(f"size 3 {n}", Status.TOO_LARGE, set_size(3, n)) for n in (2**60, 2**62, 2**63 - 1)),
    Bad("no workspace", Status.SMALL_WORKSPACE, set_field("workspace", 0)),
    Bad("workspace of 0", Status.SMALL_WORKSPACE, set_field("workspace_size", 0)),
    Bad("workspace of -1", Status.SMALL_WORKSPACE, lambda k: _less_workspace(k)),
    Bad("workspace off by 8", Status.SMALL_WORKSPACE, lambda k: _shift_workspace(k)),
]


def _less_workspace(kernel: KernelRun) -> None:
    kernel.call.workspace_size -= 1


def _shift_workspace(kernel: KernelRun) -> None:
    kernel.call.workspace += 8


@pytest.mark.parametrize("bad", FIELDS, ids=lambda bad: bad.name)
@every_op
def test_a_bad_field_is_refused(op: str, bad: Bad) -> None:
    kernel = good_call(op)
    if bad.status == Status.SMALL_WORKSPACE and not kernel.call.workspace_size:
        kernel.workspace = None
        bad.change(kernel)
        assert kernel.run() == Status.OK, "needs no workspace, so none can be too small"
        return
    bad.change(kernel)
    assert_refused(kernel, bad.status)


def test_some_operator_needs_a_workspace() -> None:
    assert any(good_call(op).call.workspace_size for op in CASES)


def test_a_workspace_for_fewer_threads_is_too_small() -> None:
    pool, seen = Pool(4), set()
    for op in CASES:
        for tx in ("float32", "float16", "float64"):
            kernel = good_call(op, tx, threads=1)
            enough = kernel.call.workspace_size >= kernel.workspace_size(pool.threads)
            seen.add(enough)
            if not enough:
                assert_refused(kernel, Status.SMALL_WORKSPACE, pool)
    assert False in seen, "no operator's workspace grows with the threads"


OPERANDS = [(op, s.name) for op, schema in CATALOG.items() for s in schema.inputs]
RESULTS = [(op, s.name) for op, schema in CATALOG.items() for s in schema.outputs]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("op", "name"), OPERANDS)
def test_a_missing_input_is_refused(op: str, name: str, packed: bool) -> None:
    kernel = good_call(op)
    index = list(kernel.inputs).index(name)
    if packed:
        kernel.pack()
    packed_away = kernel.packed is not None and kernel.call.inputs[index] is None
    kernel.call.inputs[index] = None
    if packed_away:
        assert kernel.run() == Status.OK
    else:
        assert_refused(kernel, Status.NULL_POINTER)


@pytest.mark.parametrize(("op", "name"), RESULTS)
def test_a_missing_output_is_refused(op: str, name: str) -> None:
    kernel = good_call(op)
    kernel.call.outputs[list(kernel.outputs).index(name)] = None
    assert_refused(kernel, Status.NULL_POINTER)


@pytest.mark.parametrize("tx", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize(("op", "name"), OPERANDS + RESULTS)
def test_a_misaligned_operand_is_refused(op: str, name: str, tx: str) -> None:
    kernel = good_call(op, tx)
    is_input = name in kernel.inputs
    pointers = kernel.call.inputs if is_input else kernel.call.outputs
    index = list(kernel.inputs if is_input else kernel.outputs).index(name)
    pointers[index] += 1
    assert_refused(kernel, Status.MISALIGNED)


@every_op
def test_an_output_over_an_input_it_does_not_continue_is_refused(op: str) -> None:
    states = {(out, given) for given, out in CATALOG[op].states}
    for i, given in enumerate(CATALOG[op].inputs):
        for o, out in enumerate(CATALOG[op].outputs):
            kernel = good_call(op)
            before = kernel.inputs[given.name].bytes.copy()
            kernel.call.outputs[o] = kernel.call.inputs[i]
            if (out.name, given.name) in states:
                assert kernel.run() == Status.OK
            else:
                assert_refused(kernel, Status.BAD_ALIAS)
                assert (kernel.inputs[given.name].bytes == before).all()


def test_an_empty_operand_overlaps_nothing() -> None:
    """A convolution of width 1 carries nothing: where its state points is of no interest."""
    sizes = (("B", 2), ("T", 5), ("D", 8), ("W", 1))
    case = OpCase("XlstmCausalConv1d", sizes)
    kernel = KernelRun(case, make_inputs(case), "float32")
    kernel.add_workspace(1)
    schema = CATALOG["XlstmCausalConv1d"]
    state = [spec.name for spec in schema.inputs].index("state")
    kernel.call.inputs[state] = kernel.call.inputs[0] + 16
    kernel.call.outputs[1] = kernel.call.outputs[0] + 16
    assert kernel.run() == Status.OK


@every_op
def test_overlapping_in_part_is_refused(op: str) -> None:
    for given, out in CATALOG[op].states:
        kernel = good_call(op)
        i, o = list(kernel.inputs).index(given), list(kernel.outputs).index(out)
        kernel.call.outputs[o] = kernel.call.inputs[i] + 4
        assert_refused(kernel, Status.BAD_ALIAS)
        kernel.call.outputs[o] = kernel.call.inputs[i] - 4
        assert_refused(kernel, Status.BAD_ALIAS)


@every_op
def test_two_outputs_in_one_place_are_refused(op: str) -> None:
    count = len(CATALOG[op].outputs)
    for a in range(count):
        for b in range(a):
            kernel = good_call(op)
            kernel.call.outputs[b] = kernel.call.outputs[a]
            assert_refused(kernel, Status.BAD_ALIAS)


BAD_VALUES = [
    (op, index, attribute.name, value)
    for op, schema in CATALOG.items()
    for index, attribute in enumerate(schema.attributes)
    for value in (
        (np.nan, np.inf, -np.inf, -0.5)
        if attribute.kind == "float"
        else (np.nan, np.inf, -np.inf, 0.5, -1, 2**31, -(2**31) - 1, 1e300)
    )
]


@pytest.mark.parametrize(("op", "index", "name", "value"), BAD_VALUES)
def test_an_attribute_out_of_range_is_refused(op: str, index: int, name: str, value: float) -> None:
    kernel = good_call(op)
    kernel.call.attributes[index] = value
    assert_refused(kernel, Status.BAD_ATTRIBUTE)


@pytest.mark.parametrize(
    ("op", "index", "value"),
    [("XlstmMLSTM", 2, 2), ("XlstmMLSTM", 3, 0), ("XlstmSLSTM", 2, 2), ("XlstmCausalConv1d", 0, 2)],
)
def test_one_past_the_choices_is_refused(op: str, index: int, value: int) -> None:
    kernel = good_call(op)
    kernel.call.attributes[index] = value
    assert_refused(kernel, Status.BAD_ATTRIBUTE)


def test_null_calls_are_refused() -> None:
    lib, size = library(), ctypes.c_size_t()
    call = good_call("XlstmSLSTM").call
    assert lib.xlstm_cpu_run(None, None) == Status.NULL_POINTER
    assert lib.xlstm_cpu_pack(None, None) == Status.NULL_POINTER
    assert lib.xlstm_cpu_pack(call, None) == Status.NULL_POINTER
    assert lib.xlstm_cpu_packed_size(None, size) == Status.NULL_POINTER
    assert lib.xlstm_cpu_packed_size(call, None) == Status.NULL_POINTER
    assert lib.xlstm_cpu_workspace_size(None, 1, size) == Status.NULL_POINTER
    assert lib.xlstm_cpu_workspace_size(call, 1, None) == Status.NULL_POINTER


@every_op
def test_size_questions_check_their_call(op: str) -> None:
    for bad in (bad for bad in FIELDS if bad.status.value < Status.BAD_LENGTHS):
        kernel, size = good_call(op), ctypes.c_size_t(77)
        bad.change(kernel)
        assert library().xlstm_cpu_workspace_size(kernel.call, 1, size) == bad.status
        assert library().xlstm_cpu_packed_size(kernel.call, size) == bad.status
        assert library().xlstm_cpu_pack(kernel.call, kernel.inputs["lengths"].address) == bad.status
        assert size.value == 77, "written all the same"


@pytest.mark.parametrize("threads", [0, -1, 2**31 - 1, -(2**31)])
def test_a_thread_count_out_of_range_is_refused(threads: int) -> None:
    size = ctypes.c_size_t()
    call = good_call("XlstmSLSTM").call
    assert library().xlstm_cpu_workspace_size(call, threads, size) == Status.BAD_SIZE
    assert not library().xlstm_pool_create(threads)


@pytest.mark.parametrize("op", ["XlstmSLSTM", "XlstmCausalConv1d"])
def test_packing_checks_its_pointers(op: str) -> None:
    kernel = good_call(op)
    kernel.pack()
    assert kernel.packed is not None, "nothing to pack: this test has lost its subject"
    packed = kernel.packed.address
    assert library().xlstm_cpu_pack(kernel.call, packed) == Status.NULL_POINTER
    kernel = good_call(op)
    assert library().xlstm_cpu_pack(kernel.call, packed + 4) == Status.MISALIGNED
    index = list(kernel.inputs).index({"XlstmSLSTM": "R", "XlstmCausalConv1d": "w"}[op])
    kernel.call.inputs[index] += 1
    assert library().xlstm_cpu_pack(kernel.call, packed) == Status.MISALIGNED
    kernel = good_call(op)
    kernel.call.packed = packed + 4
    assert_refused(kernel, Status.MISALIGNED)


def test_the_pool_of_none_may_be_destroyed() -> None:
    library().xlstm_pool_destroy(None)


def test_names_and_messages() -> None:
    lib = library()
    assert [lib.xlstm_find_op(op.encode()) for op in CATALOG] == [0, 1, 2]
    assert lib.xlstm_find_op(b"XlstmGRU") == lib.xlstm_find_op(b"") == lib.xlstm_find_op(None) == -1
    messages = [message(status) for status in Status]
    assert len(set(messages)) == len(Status)
    assert all(messages)
    assert message(99) == message(-1) == "unknown status"
