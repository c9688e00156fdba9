"""Each operator alone with gates far beyond those of any model: nothing overflows, and the rule
holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import state_dtype
from xlstm_export.reference.operators import run_references
from xlstm_export.runtime.operators import BundleOperators, Operator
from xlstm_export.runtime.session import Array
from xlstm_export.validation.checks.operators import operator_inputs
from xlstm_export.validation.checks.plan import Plan
from xlstm_export.validation.result import Check
from xlstm_export.validation.tally import Tally, ratio

_WIDER, _WIDEST = 2.0, 50.0
"""Times the pre-activations of the operators' own check: some 30, and some 800 to both sides."""
_SAMPLES = 3
_GATES = {"XlstmMLSTM": ("i", "f"), "XlstmSLSTM": ("gates",)}
_ROWS = 24


class HasOperators(Protocol):
    """A bundle's operators, by the ending of the results' names."""

    @property
    def operators(self) -> Mapping[str, BundleOperators]:
        """None, of an engine."""
        ...


def check_gates(everyone: HasOperators, plan: Plan) -> Check:
    """Gates of 30 to both sides by the rule, of 800 without NaN and infinity.

    Of the latter exp is no number of float32, and decays of thousands are summed: there the forms
    of the recurrence round so differently that neither measures the other.
    """
    name = "extreme gates"
    if not everyone.operators:
        return Check(name, "skipped", "the operators of an engine cannot be run one by one")
    found, unbounded = [], []
    for by, runner in everyone.operators.items():
        if by and plan.budget != "full":
            continue  # bodies beside kernels take longer
        for index, operator in enumerate(runner.kinds()):
            if operator.op_type in _GATES:
                random = np.random.default_rng((plan.seed, index))
                label = f"{operator.op_type}#{index}{by}"
                parts = sorted(_step(runner, operator, random) for _ in range(_SAMPLES))
                found.append((parts[_SAMPLES // 2], label))
                outputs = runner.run(operator, _inputs(runner, operator, 40, _WIDEST, random))
                unbounded += [label for x in outputs.values() if not np.isfinite(x).all()]
    if not found:
        return Check(name, "skipped", "no operator has gates")
    if unbounded:
        return Check(name, "failed", f"NaN or infinity with gates of 800, in {unbounded[0]}")
    part, label = max(found)
    words = f"gates of 30: at most {part:.1e} of what the rule allows, {label}; of 800: finite"
    return Check(name, "passed" if part <= 1 else "failed", words)


def _inputs(
    runner: BundleOperators, operator: Operator, steps: int, wider: float,
    random: np.random.Generator,
) -> dict[str, Array]:  # fmt: skip
    inputs = operator_inputs(operator, runner.dtype, steps, (-1,) * _ROWS, random)
    return inputs | {gate: wider * inputs[gate] for gate in _GATES[operator.op_type]}


def _step(runner: BundleOperators, operator: Operator, random: np.random.Generator) -> float:
    """The largest error of any output, in units of the rule."""
    inputs = _inputs(runner, operator, 1, _WIDER, random)
    exact, *forms = run_references(operator, inputs)
    got = runner.run(operator, inputs)
    parts = []
    for place, tensor in enumerate(CATALOG[operator.op_type].outputs):
        tally = Tally()
        tally.add([got[tensor.name], exact[place], exact[place], *(form[place] for form in forms)])
        dtype = runner.dtype if tensor.type == "TX" else state_dtype(runner.dtype)
        parts.append(ratio(tally.result(tensor.name, "operator", dtype).judgement))
    return max(parts)
