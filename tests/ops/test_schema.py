"""What a schema accepts and refuses."""

from __future__ import annotations

import pytest

from tests.ops.shapes import output_shapes
from xlstm_export.ops.catalog import CAUSAL_CONV1D, MLSTM, SLSTM
from xlstm_export.ops.schema import INT32_MAX, Attribute, OpSchema, state_dtype

MLSTM_SHAPES = [
    (2, 9, 3, 8), (2, 9, 3, 8), (2, 9, 3, 16), (2, 9, 3), (2, 9, 3),
    (2, 3, 8, 16), (2, 3, 8), (2, 3), (2,),
]  # fmt: skip
SLSTM_SHAPES = [
    (2, 9, 4, 3, 5), (3, 5, 4, 5), (4, 3, 5), (2, 3, 5), (2, 3, 5), (2, 3, 5), (2, 3, 5), (1,),
]  # fmt: skip
CONV_SHAPES = [(2, 9, 6), (6, 4), (6,), (2, 3, 6), (2,)]


def test_states_are_double_only_beside_double_activations() -> None:
    assert state_dtype("float64") == "float64"
    assert {state_dtype(tx) for tx in ("float32", "float16", "bfloat16")} == {"float32"}


def test_attributes_are_completed_with_defaults_in_catalogue_order() -> None:
    values = MLSTM.complete_attributes({"eps": 1e-3})
    assert list(values.items()) == [
        ("gate_soft_cap", 0.0), ("eps", 1e-3), ("scale_side", 0), ("chunk_size", 64),
    ]  # fmt: skip


def test_attribute_values_take_their_declared_kind() -> None:
    values = MLSTM.complete_attributes({"gate_soft_cap": 15, "chunk_size": 32.0})
    assert type(values["gate_soft_cap"]) is float
    assert type(values["chunk_size"]) is int


def test_unknown_attribute_is_named() -> None:
    with pytest.raises(ValueError, match="XlstmSLSTM has no attribute eps, rho"):
        SLSTM.complete_attributes({"rho": 1, "eps": 1, "n_floor": 1})


@pytest.mark.parametrize("value", [2, -1])
def test_a_value_outside_the_choices_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="scale_side is one of"):
        MLSTM.complete_attributes({"scale_side": value})


@pytest.mark.parametrize("value", [0.5, INT32_MAX + 1, -INT32_MAX - 2, 2**40, float("nan")])
def test_an_int_attribute_refuses_what_int32_cannot_hold(value: float) -> None:
    with pytest.raises(ValueError, match="int"):
        Attribute("size", "int", 0, "").check(value)


@pytest.mark.parametrize("value", [INT32_MAX, -INT32_MAX - 1])
def test_int32_limits_are_accepted(value: int) -> None:
    assert Attribute("size", "int", 0, "").check(value) == value


@pytest.mark.parametrize(
    ("schema", "name"),
    [(s, a.name) for s in (MLSTM, SLSTM) for a in s.attributes if a.kind == "float"],
)
def test_a_float_attribute_is_not_negative(schema: OpSchema, name: str) -> None:
    assert schema.complete_attributes({name: 0.0})[name] == 0.0
    with pytest.raises(ValueError, match=f"{name} is -0.5, expected at least 0"):
        schema.complete_attributes({name: -0.5})


def test_output_shapes_follow_the_letters() -> None:
    assert output_shapes(MLSTM, MLSTM_SHAPES) == [(2, 9, 3, 16), (2, 3, 8, 16), (2, 3, 8), (2, 3)]
    assert output_shapes(SLSTM, SLSTM_SHAPES) == [(2, 9, 3, 5), *[(2, 3, 5)] * 4]
    assert output_shapes(CAUSAL_CONV1D, CONV_SHAPES) == [(2, 9, 6), (2, 3, 6)]


def test_symbolic_dimensions_are_carried_through() -> None:
    _, w, b, _, lengths = CONV_SHAPES
    shapes = [("batch", "sequence", 6), w, b, ("batch", 3, 6), lengths]
    assert output_shapes(CAUSAL_CONV1D, shapes) == [("batch", "sequence", 6), ("batch", 3, 6)]


def test_width_one_has_an_empty_window() -> None:
    shapes = [(2, 9, 6), (6, 1), (6,), (2, 0, 6), (2,)]
    assert output_shapes(CAUSAL_CONV1D, shapes)[1] == (2, 0, 6)


@pytest.mark.parametrize(
    ("operand", "shape", "message"),
    [
        (1, (2, 9, 3, 7), r"XlstmMLSTM.k has K=7, expected 8"),
        (3, (2, 8, 3), r"XlstmMLSTM.i has T=8, expected 9"),
        (5, (2, 3, 8, 15), r"XlstmMLSTM.C has V=15, expected 16"),
        (7, (1, 3), r"XlstmMLSTM.m has B=1, expected 2"),
        (0, (2, 9, 24), r"XlstmMLSTM.q has rank 4"),
    ],
)
def test_contradicting_shapes_are_refused(
    operand: int, shape: tuple[int, ...], message: str
) -> None:
    shapes = list(MLSTM_SHAPES)
    shapes[operand] = shape
    with pytest.raises(ValueError, match=message):
        output_shapes(MLSTM, shapes)


def test_a_fixed_dimension_is_checked() -> None:
    with pytest.raises(ValueError, match="expected size 4, got 3"):
        output_shapes(SLSTM, [(2, 9, 3, 3, 5), *SLSTM_SHAPES[1:]])


def test_window_and_kernel_must_agree() -> None:
    with pytest.raises(ValueError, match="state has W=5, expected 4"):
        output_shapes(CAUSAL_CONV1D, [*CONV_SHAPES[:3], (2, 4, 6), (2,)])


def test_the_number_of_inputs_is_checked() -> None:
    with pytest.raises(ValueError, match="takes 9 inputs, got 8"):
        output_shapes(MLSTM, MLSTM_SHAPES[:-1])
