"""Every configuration in ONNX Runtime against upstream's module in float64, by the rule."""

from __future__ import annotations

import pytest
import torch

from tests.equivalence.votes import VOTES, Contest, open_contest
from tests.model_cases import BY_ID, CASES, ONE_PER_FAMILY, Library, ModelCase
from xlstm_export.lowering.lower import LoweringOptions
from xlstm_export.model.precision import BundleDtype
from xlstm_export.model.spec import ModelSpec
from xlstm_export.runtime.session import Array
from xlstm_export.validation.compare import ROLLOUT
from xlstm_export.validation.validate import rollout_inputs

torch.set_num_threads(1)

ROWS = {1: 24, 7: 12, 33: 6, 64: 3, 130: 3}
"""Length of a call -> rows in a vote: a short call has few values, and a maximum needs many."""

BATCHES = (1, 3)
LONG = 1000

NARROW: tuple[BundleDtype, ...] = ("float16", "bfloat16")
NARROW_CASES = [
    BY_ID[name]
    for name in (
        "stack-mixed", "stack-bare", "stack-slstm-no-conv", "stack-bias", "stack-tied",
        "stack-cuda-layout", "stack-odd-sizes", "stack-no-post-norm", "stack-no-feedforward",
        "stack-ffn-relu", "stack-ffn-relu2", "stack-ffn-selu", "stack-ffn-sigmoid",
        "stack-ffn-swish", "large-single", "large-fused-bias", "large-caps-off",
        "large-head-96-192", "large-odd-sizes", "hf-bf16", "hf-fp16", "hf-tied",
    )
]  # fmt: skip

GRID = [(case, "float32") for case in CASES]
GRID += [(case, dtype) for case in NARROW_CASES for dtype in NARROW]
every_case = pytest.mark.parametrize(("case", "dtype"), GRID, ids=str)


def contest_of(library: Library, case: ModelCase, dtype: BundleDtype) -> tuple[Contest, ModelSpec]:
    contest = open_contest(library, case, LoweringOptions(dtype=dtype))
    return contest, library.checkpoint(case).spec


def inputs_for(spec: ModelSpec, rows: int, steps: int) -> Array:
    return rollout_inputs(spec, VOTES * rows, steps, seed=steps)


@every_case
def test_one_call(library: Library, case: ModelCase, dtype: BundleDtype) -> None:
    contest, spec = contest_of(library, case, dtype)
    for steps, rows in ROWS.items():
        inputs = inputs_for(spec, rows, steps)
        for batch in BATCHES:
            assert not contest.unruly(inputs, (steps,), batch), (steps, batch)


@every_case
def test_carried_rollout(library: Library, case: ModelCase, dtype: BundleDtype) -> None:
    contest, spec = contest_of(library, case, dtype)
    inputs = inputs_for(spec, 3, sum(ROLLOUT))
    for batch in BATCHES:
        assert not contest.unruly(inputs, ROLLOUT, batch), batch


@pytest.mark.parametrize("dtype", ["float32", *NARROW])
@pytest.mark.parametrize("case", ONE_PER_FAMILY, ids=str)
def test_a_thousand_steps(library: Library, case: ModelCase, dtype: BundleDtype) -> None:
    contest, spec = contest_of(library, case, dtype)
    inputs = inputs_for(spec, 3, LONG)
    for batch in BATCHES:
        assert not contest.unruly(inputs, (LONG,), batch), batch
