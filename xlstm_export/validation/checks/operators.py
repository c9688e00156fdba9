"""Each operator of a bundle alone, on inputs a model's random rollout seldom reaches.

A head norm hides the scale of the hidden state, so a wrong denominator barely shows in a model's
outputs. Here the gates range widely, half of the steps have queries so small that exp(-m) is the
denominator, lengths are ragged, and states are carried in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TensorSpec, state_dtype
from xlstm_export.reference.operators import run_references
from xlstm_export.runtime.operators import BundleOperators, Operator
from xlstm_export.runtime.session import Array
from xlstm_export.validation.tally import Tally, TensorResult, middle_of_samples

_LENGTHS = ((1, (-1,) * 12), (70, (-1,) * 8 + (33,) * 4))
"""Steps, and lengths of the rows: one step, and a chunk border with ragged rows.

A whole head of C or n shares one scale and so one rounding error: many rows, or luck decides.
"""


def check_operators(runners: Mapping[str, BundleOperators], seed: int) -> list[TensorResult]:
    """One result per output of every kind of operator and runner, over a step and a sequence.

    The runners are of one bundle; the key of each ends the names of its results.
    """
    results = []
    (first, *_) = runners.values()
    for index, operator in enumerate(first.kinds()):
        random = np.random.default_rng((seed, index))
        outputs = CATALOG[operator.op_type].outputs
        tallies = {(by, tensor.name): Tally() for by in runners for tensor in outputs}
        for steps, lengths in _LENGTHS:
            inputs = operator_inputs(operator, first.dtype, steps, lengths, random)
            exact, *forms = run_references(operator, inputs)
            for by, runner in runners.items():
                got = runner.run(operator, inputs)
                for place, tensor in enumerate(outputs):
                    own = [exact[place], *(form[place] for form in forms)]
                    tallies[by, tensor.name].add([got[tensor.name], exact[place], *own])
        for by in runners:
            for tensor in outputs:
                dtype = first.dtype if tensor.type == "TX" else state_dtype(first.dtype)
                name = f"{operator.op_type}#{index} {tensor.name}{by}"
                results.append(tallies[by, tensor.name].result(name, "operator", dtype))
    return results


def repeated_operators(
    runners: Mapping[str, BundleOperators], seed: int, notes: list[str]
) -> list[TensorResult]:
    """``check_operators``, of which the middle result of three counts where one breaks the rule.

    By itself: a rollout that is within the rule is not run again for an operator's luck.
    """
    if not runners:
        return []
    return middle_of_samples(lambda number: check_operators(runners, number), seed, notes)


def operator_inputs(
    operator: Operator,
    dtype: str,
    steps: int,
    lengths: Sequence[int],
    random: np.random.Generator,
) -> dict[str, Array]:
    """Inputs by name for ``len(lengths)`` rows of ``steps`` steps, in the operand types."""
    sizes = {**dict(operator.sizes), "B": len(lengths), "T": steps}
    sizes["W-1"] = sizes.get("W", 1) - 1
    inputs: dict[str, Array] = {"lengths": np.array(lengths, np.int32)}
    for tensor in CATALOG[operator.op_type].inputs:
        if tensor.type == "lengths":
            continue
        shape = [int(d) if d.isdigit() else sizes[d] for d in tensor.dims]
        kind = dtype if tensor.type == "TX" else state_dtype(dtype)
        inputs[tensor.name] = _values(operator.op_type, tensor, shape, random).astype(kind)
    return inputs


def _values(
    op_type: str, tensor: TensorSpec, shape: Sequence[int], random: np.random.Generator
) -> Array:
    values = random.standard_normal(shape)
    if op_type == "XlstmMLSTM":
        if tensor.name in "ifm":
            return 4 * values + 2 * (tensor.name != "m")
        if tensor.name in "qk":
            values += 1  # with n > 0, q n stays away from zero, where rounding is amplified
        if tensor.name == "q":
            values[:, ::2] *= 1e-4
        return np.abs(values) + 0.5 if tensor.name == "n" else values
    if op_type == "XlstmSLSTM":
        if tensor.name == "gates":
            return 4 * values
        if tensor.name == "R":
            return values / math.sqrt(shape[1])
        if tensor.name == "n":
            return np.abs(values) + 0.5
    return values
