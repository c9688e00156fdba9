"""Upstream's modules of one part after the other are upstream's model, in its own numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from xlstm_export.families.registry import find_family
from xlstm_export.model.storage import Storage
from xlstm_export.validation.segments.plan import parts_of


@pytest.mark.parametrize(
    "name",
    ["hf-tied", "hf-backbone", "large-fused-bias", "large-no-out-norm", "stack-mixed",
     "stack-tied", "stack-bare", "stack-cuda-layout"],
)  # fmt: skip
def test_parts_in_a_row_are_the_model(library: Library, name: str) -> None:
    source = library.source(BY_ID[name])
    family = find_family(source, "auto")
    checkpoint, storage = family.read(source), Storage("float16")
    spec, random = checkpoint.spec, np.random.default_rng(0)
    calls = [random.integers(0, 199, (2, steps)) for steps in (9, 1, 70)]
    if spec.vocab_size is None:
        calls = [random.standard_normal((*ids.shape, spec.width)) for ids in calls]
    whole = family.oracle(checkpoint, storage)
    states, exact = None, []
    for x in calls:
        outputs, states = whole.run({spec.inputs[0].name: x}, states)
        exact.append(outputs[spec.outputs[0].name])
    last = {}
    for part in parts_of(spec):
        own = part.spec
        oracle = family.oracle(checkpoint, storage, own)
        assert oracle.name == whole.name
        after = None
        for index, x in enumerate(calls):
            outputs, after = oracle.run({own.inputs[0].name: x}, after)
            calls[index] = outputs[own.outputs[0].name]
        last.update(after or {})
    for got, right in zip(calls, exact, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-12, atol=1e-12)
    assert set(last) == set(states or {})
    for key, value in last.items():
        np.testing.assert_allclose(value, (states or {})[key], rtol=1e-12, atol=1e-12)
