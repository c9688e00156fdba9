"""Ways to spoil a good call of a kernel, each with the status it deserves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from tests.plugins.kernels import KernelRun, Status, element, shape_of
from xlstm_export.ops.schema import OpSchema

Random = np.random.Generator
Fault = Callable[[KernelRun, Mapping[str, int], Random], "Status | None"]
"""Spoils the call; None where this call has nothing to spoil in that way."""

MOST_BYTES = 2**46  # of one operand: call.h
ABSURD = [0, -1, -(2**63), 2**20, 2**31, 2**32 + 1, 2**40, 2**44, 2**46, 2**60, 2**62, 2**63 - 1]


def deserved(schema: OpSchema, tx: str, sizes: Mapping[str, int]) -> set[Status]:
    """What may be said of the sizes alone. An empty batch holds nothing, however large a row."""
    if any(n < (0 if d == "B" else 1) for d, n in sizes.items()):
        return {Status.BAD_SIZE}
    if _too_large(schema, tx, sizes):
        return {Status.TOO_LARGE}
    one_row = {**sizes, "B": max(1, sizes["B"])}
    return {Status.OK, Status.TOO_LARGE} if _too_large(schema, tx, one_row) else {Status.OK}


def _too_large(schema: OpSchema, tx: str, sizes: Mapping[str, int]) -> bool:
    return any(
        prod(shape_of(spec, sizes)) * element(spec, tx).itemsize > MOST_BYTES
        for spec in (*schema.inputs, *schema.outputs)
        if spec.type != "lengths"
    )


def absurd_sizes(sizes: Mapping[str, int], random: Random) -> dict[str, int]:
    """``sizes`` with one to all of them out of this world, and at times an empty batch."""
    result = dict(sizes)
    for letter in random.choice(list(sizes), random.integers(1, len(sizes) + 1)):
        result[str(letter)] = ABSURD[random.integers(len(ABSURD))]
    if random.random() < 0.2:
        result["B"] = 0
    return result


def _pick(random: Random, values: list[int]) -> int:
    return values[random.integers(len(values))]


def _bad_op(kernel: KernelRun, sizes: Mapping[str, int], random: Random) -> Status:
    kernel.call.op = _pick(random, [-1, 3, 4, 1000, 2**31 - 1, -(2**31)])
    return Status.BAD_OP


def _bad_dtype(kernel: KernelRun, sizes: Mapping[str, int], random: Random) -> Status:
    kernel.call.dtype = _pick(random, [-1, 4, 5, 2**31 - 1, -(2**31)])
    return Status.BAD_DTYPE


def _bad_size(kernel: KernelRun, sizes: Mapping[str, int], random: Random) -> Status:
    index = int(random.integers(len(sizes)))
    kernel.call.sizes[index] = _pick(random, [-1, -3, -(2**40), -(2**63), -1 if index == 0 else 0])
    return Status.BAD_SIZE


def _bad_lengths(kernel: KernelRun, sizes: Mapping[str, int], random: Random) -> Status | None:
    wrong = [-1, 2, 3, 17, 2**62, -(2**63)] + ([0] if sizes["B"] else [])
    kernel.call.lengths_size = _pick(random, [n for n in wrong if n not in (1, sizes["B"])])
    return Status.BAD_LENGTHS


def _bad_attribute(kernel: KernelRun, sizes: Mapping[str, int], random: Random) -> Status:
    index = int(random.integers(len(kernel.schema.attributes)))
    values = [np.nan, np.inf, -np.inf, -1.0]
    if kernel.schema.attributes[index].kind == "int":
        values += [0.5, 2.0**31, -(2.0**40), 1e308]
    kernel.call.attributes[index] = values[random.integers(len(values))]
    return Status.BAD_ATTRIBUTE


def _operands(kernel: KernelRun, sizes: Mapping[str, int]) -> list[tuple[bool, int, int]]:
    """(is an input, index, bytes of one element) of every operand that the call must have."""
    if sizes["B"] == 0:
        return []
    found = []
    for is_input, specs in ((True, kernel.schema.inputs), (False, kernel.schema.outputs)):
        for index, spec in enumerate(specs):
            empty = "W-1" in spec.dims and sizes["W"] == 1
            given = kernel.call.inputs[index] if is_input else kernel.call.outputs[index]
            if given and not empty:
                found.append((is_input, index, element(spec, kernel.tx).itemsize))
    return found


def _null(kernel: KernelRun, sizes: Mapping[str, int], random: Random) -> Status | None:
    operands = _operands(kernel, sizes)
    if not operands:
        return None
    is_input, index, _ = operands[random.integers(len(operands))]
    constant = is_input and kernel.schema.inputs[index].name in ("R", "w")
    if constant and kernel.call.packed:
        return None
    (kernel.call.inputs if is_input else kernel.call.outputs)[index] = None
    return Status.NULL_POINTER


def _misaligned(kernel: KernelRun, sizes: Mapping[str, int], random: Random) -> Status | None:
    operands = _operands(kernel, sizes)
    if not operands:
        return None
    is_input, index, size = operands[random.integers(len(operands))]
    pointers = kernel.call.inputs if is_input else kernel.call.outputs
    pointers[index] = (pointers[index] // size) * size + int(random.integers(1, size))
    return Status.MISALIGNED


def _alias(kernel: KernelRun, sizes: Mapping[str, int], random: Random) -> Status | None:
    """An output over an input that it does not continue, in part or whole."""
    operands = _operands(kernel, sizes)
    outputs = [index for is_input, index, _ in operands if not is_input]
    if not outputs:
        return None
    states = {(given, out) for given, out in kernel.schema.states}
    output = outputs[random.integers(len(outputs))]
    name = kernel.schema.outputs[output].name
    alignment = element(kernel.schema.outputs[output], kernel.tx).itemsize
    others = [i for is_input, i, _ in operands if is_input]
    i = others[random.integers(len(others))]
    given = kernel.schema.inputs[i].name
    shift = alignment if (given, name) in states else 0
    if shift and kernel.inputs[given].nbytes == shift:
        return None  # a state of one element cannot be overlapped in part
    kernel.call.outputs[output] = kernel.call.inputs[i] // alignment * alignment + shift
    return Status.BAD_ALIAS


def _same_outputs(kernel: KernelRun, sizes: Mapping[str, int], random: Random) -> Status | None:
    operands = _operands(kernel, sizes)
    outputs = [index for is_input, index, _ in operands if not is_input]
    if len(outputs) < 2:
        return None
    a, b = random.choice(outputs, 2, replace=False)
    alignment = element(kernel.schema.outputs[a], kernel.tx).itemsize
    kernel.call.outputs[a] = kernel.call.outputs[b] // alignment * alignment
    return Status.BAD_ALIAS


def _small_workspace(kernel: KernelRun, sizes: Mapping[str, int], random: Random) -> Status | None:
    if not kernel.call.workspace_size or sizes["B"] == 0:
        return None
    way = random.integers(4)
    if way == 0:
        kernel.call.workspace = None
    elif way == 1:
        kernel.call.workspace += int(random.integers(1, 64))
    else:
        kernel.call.workspace_size = int(random.integers(kernel.call.workspace_size))
    return Status.SMALL_WORKSPACE


def _misaligned_packed(
    kernel: KernelRun, sizes: Mapping[str, int], random: Random
) -> Status | None:
    if not kernel.call.packed or sizes["B"] == 0:
        return None
    kernel.call.packed += int(random.integers(1, 64))
    return Status.MISALIGNED


FAULTS: dict[str, Fault] = {
    "bad op": _bad_op,
    "bad dtype": _bad_dtype,
    "bad size": _bad_size,
    "bad lengths": _bad_lengths,
    "bad attribute": _bad_attribute,
    "null": _null,
    "misaligned": _misaligned,
    "alias": _alias,
    "same outputs": _same_outputs,
    "small workspace": _small_workspace,
    "misaligned packed": _misaligned_packed,
}
