"""Which weights get more bits than the others: those that gain the most for their bytes first.

What the weights cost together is about the sum of what each costs alone: errors of a few bits are
small and know nothing of each other, and both KL divergence and squared distance grow with their
squares. So weights are raised one by one, by the error that a byte saves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from xlstm_export.bundle.low_bit import Choice, LowBit

Levels = tuple[int, ...]
"""Of each group, the number of its level: 0 is the one of the fewest bits."""


@dataclass(frozen=True)
class Level:
    """A way to keep weights: ``kept`` (int4, int8, or a numpy name), at ``bytes`` and ``error``."""

    kept: str
    bytes: int
    error: float


@dataclass(frozen=True)
class Group:
    """``names`` of weights that are kept alike, and how they may be: fewer bits first."""

    names: tuple[str, ...]
    levels: tuple[Level, ...]


def raised(groups: Sequence[Group]) -> list[Levels]:
    """Every mixture on the way from all in the fewest bits to all wide, each a step above."""
    levels = [0] * len(groups)
    way = [tuple(levels)]
    while open_ := [i for i, group in enumerate(groups) if levels[i] + 1 < len(group.levels)]:
        best = max(open_, key=lambda i: _gain(groups[i], levels[i]))
        levels[best] += 1
        way.append(tuple(levels))
    return way


def _gain(group: Group, level: int) -> float:
    """Error saved by a byte, one level up."""
    below, above = group.levels[level : level + 2]
    return (below.error - above.error) / max(1, above.bytes - below.bytes)


def least(count: int, holds: Callable[[int], bool]) -> int:
    """The first of ``count`` numbers for which ``holds``, as of all that follow it; else
    ``count``. Found by halving.
    """
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def with_levels(low_bit: LowBit, groups: Sequence[Group], levels: Levels) -> LowBit:
    """``low_bit`` with the groups at ``levels``; what it names already stays as it is."""
    above = [
        (group.names, group.levels[level].kept)
        for group, level in zip(groups, levels, strict=True) if level
    ]  # fmt: skip
    eight = tuple(name for names, kept in above if kept == "int8" for name in names)
    wide = tuple(name for names, kept in above if kept != "int8" for name in names)
    return replace(low_bit, eight=eight, wide=(*low_bit.wide, *wide))


def choices(groups: Sequence[Group], levels: Levels) -> tuple[Choice, ...]:
    """What was chosen and why, what costs the most in the fewest bits first."""
    found = [
        Choice(group.names, at.kept, at.bytes, group.levels[0].error, at.error)
        for group, level in zip(groups, levels, strict=True)
        for at in [group.levels[level]]
    ]
    return tuple(sorted(found, key=lambda choice: -choice.error))


def by_source(names: Sequence[str], sources: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """``names`` in groups: two whose ``sources``, tensors of the checkpoint, meet are in one."""
    groups: list[tuple[set[str], list[str]]] = []
    for name in names:
        keys, members = set(sources[name]), [name]
        for other in [group for group in groups if not keys.isdisjoint(group[0])]:
            groups.remove(other)
            keys, members = keys | other[0], [*other[1], *members]
        groups.append((keys, members))
    return [tuple(members) for _, members in groups]
