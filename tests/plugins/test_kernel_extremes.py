"""Numbers at the edge of the type: what is finite stays finite, what is NaN shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.cases import Array, Inputs, OpCase, make_inputs
from tests.cuda.on_cpu import run_cuda
from tests.plugins.kernels import run_kernel

both = pytest.mark.parametrize("run", [run_kernel, run_cuda])
"""The CPU kernels, and the source of the CUDA kernels on the emulator."""
Run = Callable[[OpCase, Inputs, str], dict[str, Array]]
STEPS = [1, 16, 70]
"""By steps, by one chunk, by a chunk and steps."""


def mlstm(steps: int, **attributes: float) -> OpCase:
    sizes = (("B", 1), ("T", steps), ("N", 1), ("K", 8), ("V", 8))
    return OpCase("XlstmMLSTM", sizes, tuple(attributes.items()), state="zero")


@both
@pytest.mark.parametrize("steps", STEPS)
def test_a_denominator_below_the_least_normal_number_divides(run: Run, steps: int) -> None:
    """eps = 0 and exp(-m) = 0 leave |q n|: its reciprocal is infinite, the quotient is not."""
    case = mlstm(steps, eps=0.0)
    inputs = make_inputs(case)
    inputs["i"][:], inputs["f"][:] = 120, 0
    inputs["q"] *= 1e-20
    inputs["k"] *= 1e-20
    h = run(case, inputs, "float32")["h"]
    assert np.isfinite(h).all()
    assert np.abs(h).max() > 0


@both
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", ["i", "f", "m"])
def test_a_gate_that_is_no_number_shows_in_the_mlstm_state(run: Run, steps: int, name: str) -> None:
    case = mlstm(steps)
    inputs = make_inputs(case)
    inputs[name].reshape(-1)[inputs[name].size // 2] = np.nan
    assert np.isnan(run(case, inputs, "float32")["m_out"]).all()


@both
def test_products_that_overflow_later_change_nothing_before(run: Run) -> None:
    """All inputs are finite; q k of one step is not, for the queries before it either."""
    case = mlstm(20)
    inputs = make_inputs(case)
    inputs["q"] *= 1e15
    before = run(case, inputs, "float32")["h"]
    inputs["k"][:, 10] = 1e25
    assert (run(case, inputs, "float32")["h"][:, :10] == before[:, :10]).all()


@both
@pytest.mark.parametrize("steps", STEPS)
def test_gates_at_both_ends_of_the_type_are_no_nan_in_m(run: Run, steps: int) -> None:
    """i = inf beside log f = -inf: m is their maximum, not their sum."""
    case = mlstm(steps)
    inputs = make_inputs(case)
    inputs["i"][:, -1], inputs["f"][:, -1] = np.inf, -np.inf
    assert (run(case, inputs, "float32")["m_out"] == np.inf).all()


@both
def test_a_closed_output_gate_scales_a_large_normaliser(run: Run) -> None:
    """c / n is at most 1 however large both are; n (1 + exp(-o)) would overflow."""
    case = OpCase("XlstmSLSTM", (("B", 1), ("T", 1), ("N", 1), ("H", 5)))
    inputs = make_inputs(case)
    inputs["gates"][:, :, :2], inputs["gates"][:, :, 3] = 0, -80
    inputs["R"][:], inputs["b"][:], inputs["m"][:] = 0, 0, 0
    inputs["c"][:], inputs["n"][:] = 3e4, 6e4
    y = run(case, inputs, "float32")["y_out"]
    np.testing.assert_allclose(y, 0.5 * np.exp(-80.0), rtol=1e-4)


def test_soft_capped_gates_are_rounded_once() -> None:
    """m after one step from m = -inf is i, soft-capped: within half a unit of the last place."""
    sizes = (("B", 64), ("T", 1), ("N", 4), ("K", 8), ("V", 8))
    case = OpCase("XlstmMLSTM", sizes, (("gate_soft_cap", 15.0),), gate_scale=8.0)
    inputs = make_inputs(case)
    inputs["m"][:] = -np.inf
    wide = inputs["i"][:, 0].astype(np.float64)
    np.testing.assert_array_equal(
        run_kernel(case, inputs, "float32")["m_out"],
        (15 * np.tanh(wide / 15)).astype(np.float32),
    )


@both
@pytest.mark.parametrize("slot", [0, 1])
def test_a_gate_that_is_no_number_shows_in_the_slstm_state(run: Run, slot: int) -> None:
    case = OpCase("XlstmSLSTM", (("B", 1), ("T", 1), ("N", 1), ("H", 5)))
    inputs = make_inputs(case)
    inputs["n"][:] = 1
    inputs["gates"][0, 0, slot, 0, 2] = np.nan
    m = run(case, inputs, "float32")["m_out"].reshape(-1)
    assert np.isnan(m).tolist() == [False, False, True, False, False]
