"""Every configuration in ONNX Runtime against upstream's module in float64, by the rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.equivalence.votes import VOTES, InBatches, open_bench, open_bundle
from tests.model_cases import BY_ID, CASES, ONE_PER_FAMILY, Library, ModelCase
from xlstm_export.bundle.manifest import BundleDtype
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.model.spec import ModelSpec
from xlstm_export.runtime.session import Array
from xlstm_export.validation.inputs import ROLLOUT, rollout_inputs

torch.set_num_threads(1)

ROWS = {1: 24, 7: 12, 33: 6, 64: 6, 130: 6}
"""Length of a call -> rows of a sample: a short call has few values, and a maximum needs many."""

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

GRID: list[tuple[ModelCase, BundleDtype]] = [(case, "float32") for case in CASES]
GRID += [(case, dtype) for case in NARROW_CASES for dtype in NARROW]
every_case = pytest.mark.parametrize(("case", "dtype"), GRID, ids=str)


def check(
    library: Library, case: ModelCase, dtype: BundleDtype, plan: dict[tuple[int, ...], int]
) -> None:
    """Judge every output and state for each entry of ``plan``: calls -> rows of a sample."""
    bench = open_bench(library, case, dtype)
    bundle = open_bundle(library, case, LoweringOptions(dtype=dtype))
    spec = library.checkpoint(case).spec
    for calls, rows in plan.items():
        inputs = inputs_for(spec, VOTES * rows, sum(calls))
        for batch in BATCHES:
            assert not bench.broken(InBatches(bundle, batch), inputs, calls), (calls, batch)


def inputs_for(spec: ModelSpec, rows: int, steps: int) -> Array:
    """Random inputs; rows of a single token are all different, or samples would repeat."""
    if steps == 1 and spec.vocab_size is not None:
        return np.random.default_rng(0).permutation(spec.vocab_size)[:rows, None]
    return rollout_inputs(spec, rows, steps, seed=steps)


@every_case
def test_one_call(library: Library, case: ModelCase, dtype: BundleDtype) -> None:
    check(library, case, dtype, {(steps,): rows for steps, rows in ROWS.items()})


@every_case
def test_carried_rollout(library: Library, case: ModelCase, dtype: BundleDtype) -> None:
    check(library, case, dtype, {ROLLOUT: 3})


@pytest.mark.parametrize("dtype", ["float32", *NARROW])
@pytest.mark.parametrize("case", ONE_PER_FAMILY, ids=str)
def test_a_thousand_steps(library: Library, case: ModelCase, dtype: BundleDtype) -> None:
    check(library, case, dtype, {(LONG,): 3})
