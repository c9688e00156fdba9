"""Random sizes, attributes and lengths of the CUDA kernels, run on the CPU within the rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cases import OpCase, make_inputs, poisoned
from tests.cuda.on_cpu import needs_compiler, run_cuda
from tests.ops.op_models import assert_within_rule
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES

pytestmark = needs_compiler

MOST = {"B": 6, "T": 60, "N": 3, "K": 90, "V": 80, "H": 90, "D": 200, "W": 7}
CALLS = 60
FLOATS = {"eps": (1e-6, 1e-3), "n_floor": (0.0, 1.0), "f_clamp": (0.0, 15.0)}


def random_case(op: str, random: np.random.Generator) -> OpCase:
    letters = dict.fromkeys(d for s in CATALOG[op].inputs for d in s.dims if d in MOST)
    sizes = {d: int(random.integers(1, MOST[d] + 1)) for d in letters}
    attributes: dict[str, Any] = {}
    for a in CATALOG[op].attributes:
        allowed = a.choices or ((1, 7, 64) if a.kind == "int" else FLOATS.get(a.name, (0.0, 15.0)))
        attributes[a.name] = random.choice(allowed).item()
    lengths = random.integers(-1, sizes["T"] + 2, sizes["B"]) if random.random() < 0.6 else [-1]
    return OpCase(
        op, tuple(sizes.items()), tuple(attributes.items()), lengths=tuple(map(int, lengths))
    )


@pytest.mark.parametrize("op", list(CATALOG))
@pytest.mark.parametrize("seed", range(CALLS))
def test_any_call_obeys_the_rule_in_any_order_and_in_place(op: str, seed: int) -> None:
    random = np.random.default_rng([seed, *op.encode()])
    case, tx = random_case(op, random), TX_DTYPES[seed % len(TX_DTYPES)]
    inputs = make_inputs(case, tx, seed)
    got = run_cuda(case, poisoned(case, inputs), tx)
    assert_within_rule(case, inputs, tx, got)
    again = run_cuda(case, inputs, tx, alias=True, order=int(random.integers(1, 9)), shift=0)
    for name, value in got.items():
        assert again[name].tobytes() == value.tobytes(), f"{case} {tx}: {name} differs"
