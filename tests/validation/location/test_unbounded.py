"""NaN of a long rollout is placed: the first step, then the first layer."""

from __future__ import annotations

import math

from tests.model_cases import BY_ID, Library
from xlstm_export.validation.location.unbounded import locate_unbounded
from xlstm_export.validation.measures.tensor import Unbounded
from xlstm_export.validation.tally import TensorResult
from xlstm_export.validation.tolerance import Judgement


def _result(name: str, step: int | None, kind: str = "state") -> TensorResult:
    unbounded = None if step is None else Unbounded(step, 2, 5)
    return TensorResult(
        name, kind, Judgement(math.inf, 0.1, math.inf, 0.1), 1.0, (1.0,), step is None,
        unbounded=unbounded,
    )  # fmt: skip


def test_the_first_step_and_then_the_first_layer(library: Library) -> None:
    spec = library.checkpoint(BY_ID["stack-mixed"]).spec
    results = [
        _result("logits", 90, "output"), _result("0.mlstm.C", None), _result("1.slstm.n", 90),
        _result("2.mlstm.C", 90), _result("ragged 0.mlstm.C", 3), _result("2.mlstm.n", 120),
    ]  # fmt: skip
    found = locate_unbounded(spec, results)
    assert found is not None
    assert (found.layer, found.tensor) == ("layers.1.slstm", "1.slstm.n")
    assert "first at step 90, row 2; 5 numbers" in found.cause
    assert "no number" in found.words
    earlier = locate_unbounded(spec, [*results, _result("2.mlstm.m", 7)])
    assert earlier is not None
    assert earlier.layer == "layers.2.mlstm"
    assert locate_unbounded(spec, [_result("logits", None, "output")]) is None
