"""The catalogue keeps the rules every backend relies on, and the references match it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tests.cases import OP_CASES, cases_of
from xlstm_export.ops import reference
from xlstm_export.ops.catalog import CATALOG, DOMAIN, PLUGIN_ATTRIBUTES, VERSION
from xlstm_export.ops.schema import INT32_MAX, OpSchema

LETTERS = {"B", "T", "N", "K", "V", "H", "D", "W", "W-1", "4"}
FUNCTIONS: list[tuple[str, Callable[..., Any]]] = [
    ("XlstmMLSTM", reference.mlstm_recurrent),
    ("XlstmMLSTM", reference.mlstm_chunkwise),
    ("XlstmSLSTM", reference.slstm),
    ("XlstmCausalConv1d", reference.causal_conv1d),
]

every_op = pytest.mark.parametrize("schema", CATALOG.values(), ids=list(CATALOG))


def test_domain_and_plugin_attributes_agree() -> None:
    assert (DOMAIN, VERSION) == ("ai.xlstm", 1)
    wanted = {"plugin_namespace": DOMAIN, "plugin_version": str(VERSION)}
    assert wanted == PLUGIN_ATTRIBUTES


@every_op
def test_op_type_cannot_be_a_built_in(schema: OpSchema) -> None:
    assert schema.name.startswith("Xlstm")  # TensorRT tries its own importers by op type first
    assert CATALOG[schema.name] is schema


@every_op
def test_names_are_unique_and_dims_are_known_letters(schema: OpSchema) -> None:
    operands = [*schema.inputs, *schema.outputs]
    names = [t.name for t in operands] + [a.name for a in schema.attributes]
    assert len(set(names)) == len(names)
    for spec in operands:
        assert spec.type == "lengths" or set(spec.dims) <= LETTERS, spec.name


@every_op
def test_lengths_come_last_and_are_required(schema: OpSchema) -> None:
    assert [t.name for t in schema.inputs if t.type == "lengths"] == ["lengths"]
    assert schema.inputs[-1].name == "lengths"


@every_op
def test_a_state_goes_in_and_out_in_one_shape_and_type(schema: OpSchema) -> None:
    inputs = {t.name: t for t in schema.inputs}
    outputs = {t.name: t for t in schema.outputs}
    for before, after in schema.states:
        assert after == f"{before}_out"
        assert inputs[before].dims == outputs[after].dims
        assert inputs[before].type == outputs[after].type == "TS"
    assert [after for _, after in schema.states] == [t.name for t in schema.outputs[1:]]


@every_op
def test_the_first_output_runs_over_time(schema: OpSchema) -> None:
    over_time = schema.outputs[0]
    assert over_time.type == "TX"
    assert over_time.dims[:2] == ("B", "T")


@every_op
def test_every_default_is_accepted_and_fits_tensorrt(schema: OpSchema) -> None:
    values = schema.complete_attributes({})
    assert list(values) == [a.name for a in schema.attributes]
    for attribute in schema.attributes:
        value = attribute.check(attribute.default)
        assert value == attribute.default
        assert type(value) is {"int": int, "float": float}[attribute.kind]
        assert attribute.kind == "float" or abs(value) <= INT32_MAX
        for choice in attribute.choices:
            assert attribute.check(choice) == choice


@pytest.mark.parametrize(("op", "function"), FUNCTIONS, ids=[f.__name__ for _, f in FUNCTIONS])
def test_reference_signature_is_the_catalogue(op: str, function: Callable[..., Any]) -> None:
    schema = CATALOG[op]
    parameters = inspect.signature(function).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert positional == [t.name for t in schema.inputs]
    assert keywords == schema.complete_attributes({})


@every_op
def test_the_case_grid_covers_the_operator(schema: OpSchema) -> None:
    cases = cases_of(schema.name)
    for attribute in schema.attributes:
        used = {case.attribute_values()[attribute.name] for case in cases}
        assert used >= set(attribute.choices)
        assert len(used) >= 2, attribute.name
    assert {case.size["T"] for case in cases} >= {1, 7, 130, 1000}
    assert {0, 1, 64, 200, -1} in [set(case.lengths) for case in cases]
    assert {case.state for case in cases} == {"zero", "random"}


def test_case_ids_are_unique() -> None:
    assert len({str(case) for case in OP_CASES}) == len(OP_CASES)
