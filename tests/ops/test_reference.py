"""The torch definitions: right by independent formulas, and one function in all their forms."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.cases import (
    OP_CASES,
    Inputs,
    OpCase,
    cases_of,
    make_inputs,
    odd_states,
    poisoned,
    rows_of,
    run_in_pieces,
)
from tests.ops.op_models import run_exact, run_reference
from xlstm_export.ops import reference
from xlstm_export.ops.catalog import CATALOG

ROUNDING = 1e-11
"""Relative to the largest value: float64 sums of up to a thousand terms, exp of sums of gates."""

FORMS = {"XlstmMLSTM": ("recurrent", "chunkwise")}
CASES_FORMS = [(c, form) for c in OP_CASES for form in FORMS.get(c.op, ("recurrent",))]
RAGGED_FORMS = [(c, form) for c, form in CASES_FORMS if len(c.lengths) > 1]
NO_REFERENCE = "needs a float wider than float64"

torch.set_num_threads(1)


def ids(pairs: list[tuple[OpCase, str]]) -> list[str]:
    return [f"{case}-{form}" for case, form in pairs]


def run(form: str, case: OpCase, inputs: Inputs) -> Inputs:
    return run_reference(case, inputs, "float64", form)


def assert_equal(got: Inputs, wanted: Inputs, tolerance: float = ROUNDING) -> None:
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        scale = np.abs(value).max(initial=1e-300)
        error = np.abs(got[name] - value).max(initial=0.0) / scale
        assert error <= tolerance, f"{name}: {error}"


def rounds_state(case: OpCase) -> bool:
    return case.attribute_values().get("state_rounding", 0) == 1


@pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason=NO_REFERENCE)
@pytest.mark.parametrize(("case", "form"), CASES_FORMS, ids=ids(CASES_FORMS))
def test_definition_is_the_formula(case: OpCase, form: str) -> None:
    inputs = make_inputs(case, "float64")
    bf16_step = 2.0**-7 if rounds_state(case) else 0.0  # a tie may round either way
    assert_equal(run(form, case, inputs), run_exact(case, inputs), ROUNDING + bf16_step)


@pytest.mark.parametrize("chunk_size", [1, 7, 16, 64, 128])
@pytest.mark.parametrize("case", [c for c in cases_of("XlstmMLSTM") if 33 <= c.size["T"] < 1000])
def test_chunkwise_is_recurrent_at_any_chunk_size(case: OpCase, chunk_size: int) -> None:
    inputs = make_inputs(case, "float64")
    sized = replace(case, attributes=(*case.attributes, ("chunk_size", chunk_size)))
    assert_equal(run("chunkwise", sized, inputs), run("recurrent", case, inputs))


SPLIT = [(c, form) for c, form in CASES_FORMS if c.size["T"] in (7, 65, 130)]


@pytest.mark.parametrize(("case", "form"), SPLIT, ids=ids(SPLIT))
def test_carried_states_join_any_split(case: OpCase, form: str) -> None:
    inputs, steps = make_inputs(case, "float64"), case.size["T"]
    whole = run(form, case, inputs)
    for cuts in ([1], [steps // 2], [steps - 1], [1, 2, 3 + steps // 3], list(range(1, steps))):
        assert_equal(run_in_pieces(partial(run, form), case, inputs, cuts), whole)


@pytest.mark.parametrize(("case", "form"), RAGGED_FORMS, ids=ids(RAGGED_FORMS))
def test_a_ragged_row_is_that_row_alone(case: OpCase, form: str) -> None:
    inputs = make_inputs(case, "float64")
    for alone, own, got in rows_of(case, inputs, run(form, case, inputs)):
        assert_equal(got, run(form, alone, own))


@pytest.mark.parametrize(("case", "form"), RAGGED_FORMS, ids=ids(RAGGED_FORMS))
def test_nothing_leaks_from_beyond_the_length(case: OpCase, form: str) -> None:
    inputs = make_inputs(case, "float64")
    clean, got = run(form, case, inputs), run(form, case, poisoned(case, inputs))
    for name, value in clean.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize(("case", "form"), CASES_FORMS, ids=ids(CASES_FORMS))
def test_length_zero_returns_the_state_bit_for_bit(case: OpCase, form: str) -> None:
    empty = replace(case, lengths=(0,))
    inputs = poisoned(empty, odd_states(empty, make_inputs(empty, "float64")))
    results = run(form, empty, inputs)
    assert not results[CATALOG[case.op].outputs[0].name].any()
    for before, after in CATALOG[case.op].states:
        assert results[after].tobytes() == inputs[before].tobytes(), after


@pytest.mark.parametrize(("form", "gate"), [(f, g) for f in FORMS["XlstmMLSTM"] for g in (30, 80)])
def test_extreme_gates_stay_finite_in_fp32(form: str, gate: float) -> None:
    case = OpCase("XlstmMLSTM", (("B", 1), ("T", 4096), ("N", 2), ("K", 4), ("V", 4)))
    inputs = make_inputs(case)
    signs = np.random.default_rng(0).integers(0, 2, (2, *inputs["i"].shape)) * 2.0 - 1
    inputs.update(i=gate * signs[0], f=gate * signs[1])
    for value in run_reference(case, inputs, "float32", form).values():
        assert np.isfinite(value).all()


@pytest.mark.parametrize("gate", [30.0, 80.0])
def test_slstm_extreme_gates_stay_finite_in_fp32(gate: float) -> None:
    case = OpCase("XlstmSLSTM", (("B", 1), ("T", 4096), ("N", 2), ("H", 4)))
    inputs = make_inputs(case)
    inputs["gates"] = gate * np.sign(inputs["gates"])
    for value in run_reference(case, inputs, "float32", "recurrent").values():
        assert np.isfinite(value).all()


def test_an_empty_slstm_cell_starts_from_its_input_gate_whatever_its_neighbours_hold() -> None:
    case = OpCase("XlstmSLSTM", (("B", 2), ("T", 1), ("N", 1), ("H", 4)))
    inputs = make_inputs(case, "float64")
    inputs["n"][:] = [[[0.0, 1.0, 0.0, 2.0]], [[1.0, 1.0, 1.0, 0.0]]]
    inputs["m"][:] = 50.0  # a stale stabiliser: with it an empty cell would give 0 / 0 in fp32
    results = run("recurrent", case, inputs)
    raw_i = (inputs["gates"][:, 0] + inputs["b"])[:, 0] + np.einsum(
        "bnj,nje->bne", inputs["y"], inputs["R"][:, :, 0]
    )
    empty = inputs["n"] == 0
    np.testing.assert_allclose(results["m_out"][empty], raw_i[empty], rtol=1e-14)
    assert (results["n_out"][empty] == 1).all()
    assert (results["m_out"][~empty] > 40).all()


def test_slstm_is_its_unstabilised_formula() -> None:
    case = OpCase("XlstmSLSTM", (("B", 3), ("T", 50), ("N", 2), ("H", 5)))
    x = make_inputs(case, "float64")
    x["n"] = 0.5 + np.abs(x["n"])
    y, c, n = x["y"], x["c"] * np.exp(x["m"]), x["n"] * np.exp(x["m"])
    ys = []
    for t in range(50):
        raw = x["gates"][:, t] + np.einsum("bnj,njge->bgne", y, x["R"]) + x["b"]
        i, f, z, o = np.exp(raw[:, 0]), raw[:, 1], np.tanh(raw[:, 2]), raw[:, 3]
        keep = 1 / (1 + np.exp(-f))
        c, n = keep * c + i * z, keep * n + i
        y = c / n / (1 + np.exp(-o))
        ys.append(y)
    results = run("recurrent", case, x)
    scale = np.exp(-results["m_out"])
    wanted = {"y_all": np.stack(ys, 1), "y_out": y, "c_out": c * scale, "n_out": n * scale}
    assert_equal({name: results[name] for name in wanted}, wanted)


def test_conv_is_torchs_grouped_convolution() -> None:
    x, w, b = torch.randn(2, 9, 6).double(), torch.randn(6, 4).double(), torch.randn(6).double()
    state = torch.zeros(2, 3, 6).double()
    got = reference.causal_conv1d(x, w, b, state, torch.tensor([-1], dtype=torch.int32))
    padded = torch.nn.functional.pad(x.mT, (3, 0))
    wanted = torch.nn.functional.conv1d(padded, w[:, None], b, groups=6).mT
    torch.testing.assert_close(got.y, wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal(got.state, x[:, -3:])


# --- the authors' own functions -------------------------------------------------------------------


def upstream_case(scale_side: int, state: str = "random") -> tuple[OpCase, dict[str, torch.Tensor]]:
    """A case whose q and k have V = K, as the xlstm package wants, and its inputs in torch."""
    case = OpCase(
        "XlstmMLSTM",
        (("B", 2), ("T", 64), ("N", 3), ("K", 16), ("V", 16)),
        attributes=(("scale_side", scale_side), ("eps", 0.0 if state == "zero" else 1e-6)),
        state=state,  # type: ignore[arg-type]
    )
    inputs = make_inputs(case, "float64")
    return case, {name: torch.from_numpy(a) for name, a in inputs.items()}


def heads_first(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).contiguous()


def test_xlstm_parallel_form() -> None:
    backends = pytest.importorskip("xlstm.blocks.mlstm.backends")
    _, x = upstream_case(1, "zero")  # with eps 0 the parallel form's other m does not matter
    wanted = backends.parallel_stabilized_simple(
        *(heads_first(x[name]) for name in "qkv"),
        *(heads_first(x[name])[..., None] for name in "if"),
        eps=0.0,
    )
    for function in (reference.mlstm_recurrent, reference.mlstm_chunkwise):
        got = function(**x, eps=0.0, scale_side=1)
        torch.testing.assert_close(got.h, heads_first(wanted), rtol=1e-9, atol=1e-11)


def test_xlstm_recurrent_step() -> None:
    backends = pytest.importorskip("xlstm.blocks.mlstm.backends")
    _, x = upstream_case(1)
    state = (x["C"], x["n"][..., None], x["m"][..., None, None])
    hs = []
    for t in range(64):
        h, state = backends.recurrent_step_stabilized_simple(
            *state,
            *(x[name][:, t, :, None].clone() for name in "qkv"),
            *(x[name][:, t, :, None, None] for name in "if"),
        )
        hs.append(h.squeeze(2))
    got = reference.mlstm_recurrent(**x, scale_side=1)
    wanted = (torch.stack(hs, 1), state[0], state[1].squeeze(-1), state[2].flatten(2).squeeze(-1))
    torch.testing.assert_close(tuple(got), wanted, rtol=1e-9, atol=1e-11)


def test_mlstm_kernels_step() -> None:
    kernels = pytest.importorskip("mlstm_kernels.torch.recurrent.native_step")
    _, x = upstream_case(0)
    state = (x["C"], x["n"], x["m"][..., None])
    hs = []
    for t in range(64):
        h, state = kernels.mlstm_recurrent_step__native(
            *(x[name][:, t] for name in "qkv"),
            *(x[name][:, t, :, None] for name in "if"),
            *state,
            dtype_state=torch.float64,
        )
        hs.append(h)
    got = reference.mlstm_recurrent(**x, scale_side=0)
    wanted = (torch.stack(hs, 1), state[0], state[1], state[2].squeeze(-1))
    torch.testing.assert_close(tuple(got), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("chunk_size", [16, 64])
def test_mlstm_kernels_chunkwise(chunk_size: int) -> None:
    kernels = pytest.importorskip("mlstm_kernels.torch.chunkwise.native.fw")
    _, x = upstream_case(0)
    h, (C, n, m) = kernels.mlstm_chunkwise(
        *(heads_first(x[name]) for name in "qkvif"),
        x["C"], x["n"], x["m"][..., None],
        return_last_states=True, chunk_size=chunk_size,
    )  # fmt: skip
    got = reference.mlstm_chunkwise(**x, scale_side=0, chunk_size=chunk_size)
    wanted = (heads_first(h), C, n, m.squeeze(-1))
    torch.testing.assert_close(tuple(got), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("state", ["zero", "random"])
def test_xlstm_slstm_pointwise(state: str) -> None:
    vanilla = pytest.importorskip("xlstm.blocks.slstm.src.vanilla.slstm")
    case = OpCase("XlstmSLSTM", (("B", 2), ("T", 40), ("N", 3), ("H", 5)), state=state)  # type: ignore[arg-type]
    inputs = make_inputs(case, "float64")
    if state == "random":
        inputs["n"] = 0.5 + np.abs(inputs["n"])  # upstream's n == 0 rule is for whole batches
    x = {name: torch.from_numpy(a) for name, a in inputs.items()}
    states = torch.stack([x[name].flatten(1) for name in "ycnm"])
    ys = []
    for t in range(40):
        y = states[0].view(2, 3, 5)
        mixed = torch.einsum("bnj,njge->bgne", y, x["R"]).flatten(1)
        states, _ = vanilla.slstm_forward_pointwise(
            x["gates"][:, t].flatten(1), mixed, x["b"].flatten()[None], states, {}
        )
        ys.append(states[0].view(2, 3, 5))
    got = reference.slstm(**x)
    wanted = (torch.stack(ys, 1), *(s.view(2, 3, 5) for s in states))
    torch.testing.assert_close(tuple(got), wanted, rtol=1e-10, atol=1e-12)
