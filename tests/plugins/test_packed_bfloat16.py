"""XlstmSLSTM keeps an R that is all bfloat16 in half the bytes, and the results keep their bits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import OpCase, make_inputs, rounded
from tests.plugins.kernels import run_kernel

NO_BFLOAT16 = 1 + 2.0**-9
"""A number of float16 and float32, of too many bits for bfloat16."""


@pytest.mark.parametrize("tx", ["float32", "float16"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("size", [1, 7, 16, 33, 128])
@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_bits_do_not_depend_on_how_r_is_kept(batch: int, size: int, packed: bool, tx: str) -> None:
    """One number of another head decides; the head that is looked at has the same R."""
    case = OpCase(
        "XlstmSLSTM", (("B", batch), ("T", 6), ("N", 2), ("H", size)),
        attributes=(("state_rounding", 1), ("f_clamp", 15.0)),
    )  # fmt: skip
    inputs = make_inputs(case, tx)
    inputs["R"] = rounded(rounded(inputs["R"], "bfloat16"), tx)
    others = dict(inputs, R=inputs["R"].copy())
    others["R"][1, size - 1, 3, size - 1] = NO_BFLOAT16
    narrow = run_kernel(case, inputs, tx, packed=packed)
    wide = run_kernel(case, others, tx, packed=packed)
    for name, value in narrow.items():
        axis = 2 if name == "y_all" else 1
        first, same = (np.take(got, 0, axis) for got in (value, wide[name]))
        assert first.tobytes() == same.tobytes(), name
    assert narrow["y_all"].tobytes() != wide["y_all"].tobytes()
