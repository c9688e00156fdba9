"""What would explain a wrong part, in words: what the file has otherwise, or what was computed.

Two kinds of evidence. The file beside the graph that the checkpoint gives: weights, attributes,
nodes and bodies that differ. And the numbers beside the exact ones: the same in another order,
scaled, or not moved at all. Where neither says anything, nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

import numpy as np

from xlstm_export.lowering.differences import Differences, OtherAttribute, OtherWeight
from xlstm_export.runtime.session import Array
from xlstm_export.validation.location.parts import Seen, Wrong

UNKNOWN = "its arithmetic is other than the reference's, on exact inputs and the right weights"
_SLOTS = ("input gate", "forget gate", "cell input", "output gate")
_OPERANDS = {
    "q": "queries", "k": "keys", "v": "values", "i": "input gate", "f": "forget gate",
}  # fmt: skip
_CLOSE = 1e-2
"""Errors this small beside the numbers are the part's rounding, for telling one cause of another:
the narrowest precision keeps two decimals and a half."""


def likely_cause(
    wrong: Wrong, calls: Sequence[Seen], differences: Differences, eps_inside: Mapping[str, bool]
) -> str:
    """The best explanation there is, ``UNKNOWN`` where there is none.

    ``eps_inside`` says of operators with changed bodies whether eps is inside the maximum there.
    """
    if not wrong.result.finite:
        return "it computes NaN or infinity from finite inputs"
    found = [
        *_of_state(wrong, calls),
        *map(attribute_words, differences.attributes),
        *map(weight_words, differences.weights),
        *_of_numbers(wrong, calls),
        *(body_words(name, eps_inside.get(name, False)) for name in differences.bodies),
    ]
    if found:
        return "; ".join(dict.fromkeys(found[:2]))
    if differences.nodes:
        return f"the graph is wired otherwise than export does: {', '.join(differences.nodes[:3])}"
    return UNKNOWN


def body_words(op_type: str, eps_inside: bool) -> str:
    """What is said of an operator whose body is another."""
    if eps_inside:
        return (
            f"the body of {op_type} adds eps inside the max of its denominator: "
            "max(|q n| + eps, exp(-m)) in place of max(|q n|, exp(-m)) + eps"
        )
    return f"the body of {op_type} in the file is not the one that this version writes"


def attribute_words(other: OtherAttribute) -> str:
    """What is said of an attribute that the checkpoint does not have."""
    if other.attribute == "scale_side":
        sides = ("queries", "keys")
        return (
            f"the scale 1/sqrt(K) is on the wrong side: on the {sides[int(str(other.file))]}, "
            f"and by the checkpoint on the {sides[int(str(other.expected))]} (scale_side)"
        )
    return (
        f"{other.attribute} of {other.op_type} is {_number(other.file)} in the file, and "
        f"{_number(other.expected)} by the checkpoint"
    )


def weight_words(other: OtherWeight) -> str:
    """What is said of a weight whose numbers are not the checkpoint's."""
    file, right, name = other.file, other.expected, other.name
    if not file.any():
        return f"{name} is all zeros: it was left out"
    if "norm" in name and _same(file, right - 1):
        return f"{name} is a norm without its +1: each number is the checkpoint's less one"
    if "norm" in name and _same(file, right + 1):
        return f"{name} is a norm with one too many: each number is the checkpoint's and one"
    for axis, count, order in _orders(file.shape):
        if _same(file, _reordered(right, axis, count, order)):
            gates = " (swapped gates)" if "gate" in name else ""
            return f"{name} has its parts in another order along axis {axis}{gates}"
    if _is_transposed(file, right):
        return f"{name} is transposed"
    factor = _factor(file, right)
    if factor is not None:
        return f"{name} is {factor:.4g} times the checkpoint's"
    count = int((file != right).sum())
    return f"{name} is stale: {count} of its {file.size} numbers are not the checkpoint's"


def _of_state(wrong: Wrong, calls: Sequence[Seen]) -> Iterator[str]:
    """A state that does not move."""
    seen = [call for call in calls if wrong.name in call.before]
    if not seen:
        return
    if all(
        np.array_equal(call.got[wrong.name], np.float32(call.before[wrong.name])) for call in seen
    ):
        yield f"state {wrong.name} is not carried: what comes out is what went in"
    elif all(not call.got[wrong.name].any() for call in seen):
        yield f"state {wrong.name} is not carried: it comes out as zeros"


def _of_numbers(wrong: Wrong, calls: Sequence[Seen]) -> Iterator[str]:
    """Numbers that are right elsewhere, or up to a factor."""
    got, exact = (
        [getattr(call, side)[wrong.name].astype(np.float64) for call in calls]
        for side in ("got", "exact")
    )
    tensor = wrong.name.rpartition(".")[2]
    if tensor == "gates":
        for order in permutations(range(len(_SLOTS))):
            if order != tuple(range(len(_SLOTS))) and _all_close(
                got, [x[:, :, order] for x in exact]
            ):
                moved = [_SLOTS[to] for to, origin in enumerate(order) if to != origin]
                yield f"swapped gates: {' and '.join(moved)} are in each other's slots"
    others = {
        _OPERANDS[name]: [call.exact[_beside(wrong.name, name)] for call in calls]
        for name in _OPERANDS
        if name != tensor and _beside(wrong.name, name) in calls[0].exact
    }
    for name, numbers in others.items():
        if tensor in _OPERANDS and _all_close(got, numbers):
            yield f"the {_OPERANDS[tensor]} and the {name} are swapped"
    factors = [_factor(a, b) for a, b in zip(got, exact, strict=True)]
    factor = factors[0]
    if factor is not None and all(
        f is not None and math.isclose(f, factor, rel_tol=_CLOSE) for f in factors
    ):
        yield f"it is {factor:.4g} times the exact one: a scale is missing, or on the wrong side"


def _beside(name: str, tensor: str) -> str:
    return f"{name.rpartition('.')[0]}.{tensor}"


def _orders(shape: tuple[int, ...]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Ways to reorder equal parts along an axis: axis, how many, their order."""
    for axis, size in enumerate(shape):
        for count in (2, 3, 4):
            if size > 1 and size % count == 0:
                orders = permutations(range(count))
                next(orders)
                yield from ((axis, count, order) for order in orders)


def _reordered(array: Array, axis: int, count: int, order: tuple[int, ...]) -> Array:
    parts = np.split(array, count, axis)
    return np.concatenate([parts[i] for i in order], axis)


def _is_transposed(file: Array, right: Array) -> bool:
    """Whole, or in one square block of columns of matrices that are packed side by side."""
    if file.ndim < 2:
        return False
    if file.shape[-1] == file.shape[-2] and _same(file, np.swapaxes(right, -1, -2)):
        return True
    size = file.shape[-2]
    (changed,) = np.nonzero((file != right).reshape(-1, file.shape[-1]).any(0))
    start = int(changed[0]) // size * size
    block = slice(start, start + size)
    same_elsewhere = changed[-1] < start + size
    return bool(
        same_elsewhere
        and file[..., block].shape[-1] == size
        and _same(file[..., block], np.swapaxes(right[..., block], -1, -2))
    )


def _factor(got: Array, exact: Array) -> float | None:
    """The one number that ``got`` is larger than ``exact`` by; None where there is none, or 1."""
    power = float(np.square(exact).sum())
    if power == 0:
        return None
    factor = float((got * exact).sum()) / power
    if abs(factor - 1) < 2 * _CLOSE or factor == 0 or not _same(got, factor * exact):
        return None
    return factor


def _same(a: Array, b: Array) -> bool:
    return bool(np.linalg.norm(a - b) <= _CLOSE * np.linalg.norm(b))


def _all_close(got: Sequence[Array], others: Sequence[Array]) -> bool:
    pairs = zip(got, others, strict=True)
    return all(a.shape == b.shape and _same(a, b.astype(np.float64)) for a, b in pairs)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
