"""Function bodies in ONNX Runtime, held to the one rule of ``validation.tolerance``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

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
    rounded,
    run_in_pieces,
)
from tests.ops.op_models import (
    Job,
    assert_rows_alone,
    assert_within_rule,
    element_type,
    judgements,
    op_model,
    run_body,
    run_in_other_runtime,
)
from xlstm_export.lowering.functions import function_body
from xlstm_export.ops.catalog import CATALOG, PLUGIN_ATTRIBUTES
from xlstm_export.ops.schema import TX_DTYPES

OPSETS = (18, 19, 20, 21)
SHORT = [case for case in OP_CASES if case.size["T"] < 200]
EDGES = [case for case in SHORT if case.size["T"] in (1, 130)]
RAGGED = [case for case in OP_CASES if len(case.lengths) > 1]

every_tx = pytest.mark.parametrize("tx", TX_DTYPES)
every_op = pytest.mark.parametrize("op", list(CATALOG))


def over_time(case: OpCase) -> str:
    return CATALOG[case.op].outputs[0].name


# --- the text ----------------------------------------------------------------------------------


@every_op
@pytest.mark.parametrize("opset", OPSETS)
def test_signature_is_the_catalogue(op: str, opset: int) -> None:
    schema, function = CATALOG[op], function_body(op, opset)
    assert (function.domain, function.name) == ("ai.xlstm", op)
    assert list(function.input) == [t.name for t in schema.inputs]
    assert list(function.output) == [t.name for t in schema.outputs]
    assert not function.attribute  # every attribute has a default
    defaults = {a.name: onnx.helper.get_attribute_value(a) for a in function.attribute_proto}
    wanted = {a.name: a.default for a in schema.attributes}
    assert defaults == {
        **{k: float(np.float32(v)) if isinstance(v, float) else v for k, v in wanted.items()},
        **{k: v.encode() for k, v in PLUGIN_ATTRIBUTES.items()},
    }
    assert [(o.domain, o.version) for o in function.opset_import] == [("", opset)]


@every_op
def test_node_carries_every_attribute_and_the_plugin_name(op: str) -> None:
    (node,) = op_model(OpCase(op, ()), "float32").graph.node
    names = [a.name for a in CATALOG[op].attributes]
    assert sorted(a.name for a in node.attribute) == sorted([*names, *PLUGIN_ATTRIBUTES])


@every_op
def test_body_reads_every_attribute(op: str) -> None:
    nodes = list(walk(function_body(op, 18).node))
    read = {a.ref_attr_name for node in nodes for a in node.attribute} - {""}
    assert read == {a.name for a in CATALOG[op].attributes}


@every_op
def test_body_keeps_to_operators_every_runtime_has(op: str) -> None:
    nodes = list(walk(function_body(op, 18).node))
    assert {node.domain for node in nodes} == {""}
    # Pad: ONNX Runtime 1.20 and 1.23 cannot load it here; Softplus: no float64 on CPU;
    # Sigmoid: off by 2e-7 however small it is
    assert not {node.op_type for node in nodes} & {"Pad", "Softplus", "Sigmoid"}
    assert all(node.input[j] for node in nodes for j in range(len(node.input)))


@every_op
def test_a_name_is_defined_once_branches_included(op: str) -> None:
    function = function_body(op, 18)
    names = Counter([*function.input, *defined(function.node)])
    assert [name for name, times in names.items() if times > 1] == []


def defined(nodes: list[onnx.NodeProto]) -> Iterator[str]:
    for node in walk(nodes):
        yield from node.output
        for attribute in node.attribute:
            yield from (tensor.name for tensor in attribute.g.input)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case", SHORT, ids=str)
def test_strict_shape_inference_takes_the_body(case: OpCase, opset: int) -> None:
    model = op_model(case, "float32", opset, fixed=True)
    for data_prop in (False, True):
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=data_prop)


def walk(nodes: list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from walk(attribute.g.node)


# --- the numbers -------------------------------------------------------------------------------


@every_tx
@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_body_obeys_the_rule(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    got = run_body(case, inputs, tx)
    for spec in CATALOG[case.op].outputs:
        assert got[spec.name].dtype == NUMPY_DTYPES[element_type(spec, tx)]
    assert_within_rule(case, inputs, tx, got)


@every_tx
@pytest.mark.parametrize("opset", OPSETS[1:])
@pytest.mark.parametrize("case", EDGES, ids=str)
def test_later_opsets_compute_the_same(case: OpCase, opset: int, tx: str) -> None:
    inputs = make_inputs(case, tx)
    first, later = run_body(case, inputs, tx), run_body(case, inputs, tx, opset)
    for name, value in first.items():
        np.testing.assert_array_equal(later[name], value, err_msg=name)


@every_tx
@pytest.mark.parametrize("case", SHORT, ids=str)
def test_static_shapes_and_constant_lengths_change_nothing(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    assert_within_rule(case, inputs, tx, run_body(case, inputs, tx, fixed=True))


@pytest.mark.parametrize("case", [c for c in SHORT if c.size["T"] in (1, 7)], ids=str)
def test_onnx_own_evaluator_runs_the_body(case: OpCase) -> None:
    inputs = make_inputs(case)
    feeds = {n: a if n == "lengths" else a.astype(np.float32) for n, a in inputs.items()}
    results = ReferenceEvaluator(op_model(case, "float32")).run(None, feeds)
    names = [s.name for s in CATALOG[case.op].outputs]
    assert_within_rule(case, inputs, "float32", dict(zip(names, results, strict=True)))


def changes() -> Iterator[tuple[str, str, float]]:
    """One value per attribute that is neither its default nor without effect on ``base_case``."""
    values = {"gate_soft_cap": 2.0, "eps": 0.1, "n_floor": 3.0, "f_clamp": 0.5, "chunk_size": 7}
    for schema in CATALOG.values():
        for attribute in schema.attributes:
            yield schema.name, attribute.name, values.get(attribute.name, 1)


@pytest.mark.parametrize("steps", [1, 33])
@pytest.mark.parametrize(("op", "name", "value"), list(changes()))
def test_each_attribute_alone_has_the_effect_the_reference_says(
    op: str, name: str, value: float, steps: int
) -> None:
    sizes = {"B": 1, "T": steps, "N": 2, "K": 32, "V": 32, "H": 32, "D": 32, "W": 4}
    used = {letter for spec in CATALOG[op].inputs for letter in spec.dims}
    plain = OpCase(op, tuple((d, s) for d, s in sizes.items() if d in used))
    changed = replace(plain, attributes=((name, value),))
    inputs = make_inputs(plain)
    if "n" in inputs:
        inputs["n"] = rounded(0.5 + np.abs(inputs["n"]), "float32")
    got = run_body(changed, inputs, "float32")
    assert_within_rule(changed, inputs, "float32", got)
    as_plain = judgements(plain, inputs, "float32", got).values()
    assert all(j.ok for j in as_plain) == (name == "chunk_size")


# --- one function in all its uses --------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in SHORT if c.size["T"] > 2], ids=str)
def test_carried_states_join_any_split(case: OpCase) -> None:
    inputs, steps = make_inputs(case), case.size["T"]
    run = partial(run_body, tx="float32")
    for cuts in ([1], [steps - 1], [steps // 3, steps // 2], list(range(1, steps))):
        whole = run_in_pieces(run, case, inputs, cuts)
        assert_within_rule(case, inputs, "float32", whole)


@pytest.mark.parametrize("case", RAGGED, ids=str)
def test_a_ragged_row_is_that_row_alone(case: OpCase) -> None:
    inputs = make_inputs(case)
    batch = run_body(case, inputs, "float32")
    assert_rows_alone(case, inputs, batch)


@every_tx
@pytest.mark.parametrize("case", RAGGED, ids=str)
def test_nothing_leaks_from_beyond_the_length(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    clean, got = run_body(case, inputs, tx), run_body(case, poisoned(case, inputs), tx)
    for name, value in clean.items():
        assert got[name].tobytes() == value.tobytes(), name


@every_tx
@pytest.mark.parametrize("case", SHORT, ids=str)
def test_length_zero_returns_the_state_bit_for_bit(case: OpCase, tx: str) -> None:
    empty = replace(case, lengths=(0,))
    inputs = poisoned(empty, odd_states(empty, make_inputs(empty, tx)))
    results = run_body(empty, inputs, tx)
    assert not results[over_time(case)].any()
    for before, after in CATALOG[case.op].states:
        given = inputs[before].astype(results[after].dtype)
        assert results[after].tobytes() == given.tobytes(), after


@pytest.mark.parametrize("length", [-1, -7, 5, 2**31 - 1])
@pytest.mark.parametrize("steps", [1, 5])
@every_op
def test_one_length_serves_every_row(op: str, steps: int, length: int) -> None:
    case = replace(next(c for c in cases_of(op) if c.size["B"] > 1), lengths=(length,))
    case = replace(case, sizes=tuple((d, steps if d == "T" else n) for d, n in case.sizes))
    inputs = make_inputs(case)
    one = run_body(case, inputs, "float32")
    inputs["lengths"] = np.full(case.size["B"], -1, np.int32)
    for name, value in run_body(case, inputs, "float32").items():
        np.testing.assert_array_equal(one[name], value, err_msg=name)


# --- extremes ----------------------------------------------------------------------------------

EXTREME = (
    OpCase("XlstmMLSTM", (("B", 1), ("T", 130), ("N", 3), ("K", 8), ("V", 8))),
    OpCase("XlstmSLSTM", (("B", 1), ("T", 130), ("N", 3), ("H", 8))),
)
GATES = {
    "+-30": (30.0, 30.0), "+-80": (80.0, 80.0), "+-200": (200.0, 200.0), "i-80": (-80.0, 80.0),
    "f-80": (80.0, -80.0), "both-80": (-80.0, -80.0), "both-1000": (-1000.0, -1000.0),
}  # fmt: skip


def with_gates(case: OpCase, gates: str) -> Inputs:
    """Uncapped pre-activations of one size: random signs for "+-", else all alike."""
    inputs = make_inputs(case)
    i, f = GATES[gates]
    if case.op == "XlstmSLSTM":
        sizes = np.array([i, f, 3.0, -12.0])[:, None, None]
        inputs["gates"] = sizes * signs_of(inputs["gates"], gates)
        return inputs
    inputs["i"] = i * signs_of(inputs["i"], gates)
    inputs["f"] = f * signs_of(inputs["f"] - 3, gates)
    return inputs


def signs_of(array: Array, gates: str) -> Array:
    return np.sign(array) if gates.startswith("+-") else np.ones_like(array)


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("case", EXTREME, ids=str)
def test_extreme_gates_obey_the_rule(case: OpCase, gates: str) -> None:
    inputs = with_gates(case, gates)
    assert_within_rule(case, inputs, "float32", run_body(case, inputs, "float32"))


@pytest.mark.parametrize("gates", ["+-30", "+-80", "both-80"])
@pytest.mark.parametrize("case", EXTREME, ids=str)
def test_extreme_gates_stay_finite_over_thousands_of_steps(case: OpCase, gates: str) -> None:
    sizes = tuple((d, 4096 if d == "T" else n) for d, n in case.sizes)
    long_case = replace(case, sizes=sizes)
    for name, value in run_body(long_case, with_gates(long_case, gates), "float32").items():
        assert np.isfinite(value).all(), name


def test_silu_keeps_its_digits_far_below_zero() -> None:
    case = next(c for c in cases_of("XlstmCausalConv1d") if c.attribute_values()["activation"])
    inputs = make_inputs(case)
    inputs["b"] = rounded(inputs["b"] - 15.0, "float32")
    assert_within_rule(case, inputs, "float32", run_body(case, inputs, "float32"))


# --- older runtimes ----------------------------------------------------------------------------

RUNTIMES = [Path(p) for p in os.environ.get("XLSTM_ORT_DIRS", "").split(os.pathsep) if p]
NO_RUNTIMES = "XLSTM_ORT_DIRS names no folder with an unpacked onnxruntime wheel"


@pytest.mark.skipif(not RUNTIMES, reason=NO_RUNTIMES)
@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda path: path.name)
def test_bodies_obey_the_rule_in_other_runtimes(runtime: Path, tmp_path: Path) -> None:
    jobs = [Job(c, make_inputs(c, tx), tx) for c in SHORT for tx in TX_DTYPES]
    jobs += [Job(c, make_inputs(c), "float32", opset) for c in EDGES for opset in OPSETS[1:]]
    jobs += [Job(c, make_inputs(c), "float32", fixed=True) for c in SHORT]
    version, results = run_in_other_runtime(runtime, jobs, tmp_path)
    assert version in runtime.name or (runtime / f"onnxruntime-{version}.dist-info").is_dir()
    for job, got in zip(jobs, results, strict=True):
        assert_within_rule(job.case, job.inputs, job.tx, got)
