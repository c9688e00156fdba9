"""NaN and infinity that no part computes from exact inputs: where a rollout first shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import state_specs
from xlstm_export.validation.result import Location
from xlstm_export.validation.tally import TensorResult


def locate_unbounded(spec: ModelSpec, results: Sequence[TensorResult]) -> Location | None:
    """The first step at which a state or an output is no number, in the first layer that has it.

    None where all numbers are finite. Results of operators alone have no steps and are left out.
    """
    paths = {state.key: state.path for state in state_specs(spec)}
    order = {name: place for place, name in enumerate(paths)}
    found = [
        (result.unbounded.step, order.get(result.name, len(order)), result)
        for result in results
        if result.unbounded is not None and result.name in {*paths, *_outputs(spec)}
    ]
    if not found:
        return None
    _, _, first = min(found, key=lambda entry: entry[:2])
    assert first.unbounded is not None
    return Location(
        paths.get(first.name, spec.layers[-1][0]), "what a long rollout computes", first.name,
        math.inf, first.judgement.max_allowed,
        f"NaN or infinity, {first.unbounded.words}; on exact inputs and a short rollout every part "
        "computes numbers, so they come of what adds up before",
    )  # fmt: skip


def _outputs(spec: ModelSpec) -> list[str]:
    return [tensor.name for tensor in spec.outputs]
