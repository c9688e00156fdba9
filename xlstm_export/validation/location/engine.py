"""A right graph that an engine or a GPU computes wrong: the layer in which that shows first.

A layer's states depend on the layers before it and on no later one. So the first layer whose states
are beyond the rule is wrong itself, or what leads into it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from xlstm_export.model.state import state_specs
from xlstm_export.validation.participants import Participants
from xlstm_export.validation.result import Location
from xlstm_export.validation.tally import TensorResult, ratio

_CAUSE = (
    "the graph is right: every part of it is within the rule in ONNX Runtime on the CPU. What runs "
    "it here computes this layer, or what leads into it, otherwise"
)
_MOST_OTHERS = 8


def locate_engine_fault(everyone: Participants, results: Sequence[TensorResult]) -> Location | None:
    """The first layer whose states are wrong, of a subject that runs elsewhere than on the CPU.

    None of ONNX Runtime on the CPU, and where no tensor of the rollout is wrong.
    """
    how = everyone.execution
    wrong = {r.name: r for r in results if not r.judgement.ok and r.kind in ("output", "state")}
    if not wrong or not (how.engine or how.is_cuda):
        return None
    states = [state for state in state_specs(everyone.spec) if state.key in wrong]
    runner = "; ".join(everyone.subject.describe().values())
    if states:
        same = [wrong[s.key] for s in states if s.path == states[0].path]
        where, worst = states[0].path, max(same, key=lambda result: ratio(result.judgement))
        tensor = f"state {worst.name}"
    else:
        worst = max(wrong.values(), key=lambda result: ratio(result.judgement))
        where, tensor = "what follows the last layer with states", worst.name
    others = tuple(name for name in wrong if name != worst.name)
    more = (f"and {len(others) - _MOST_OTHERS} more",) if len(others) > _MOST_OTHERS else ()
    return Location(
        where, runner, tensor, worst.judgement.max_error, worst.judgement.max_allowed, _CAUSE,
        (*others[:_MOST_OTHERS], *more),
    )  # fmt: skip
