"""Which weights get more bits: order, bounds, and what is written down."""

from __future__ import annotations

from xlstm_export.bundle.low_bit import LowBit
from xlstm_export.model.mixture import (
    Group,
    Level,
    by_source,
    choices,
    least,
    raised,
    with_levels,
)

LARGE = Group(("a", "b"), (Level("int4", 100, 8.0), Level("int8", 200, 1.0), Level("f", 800, 0.0)))
SMALL = Group(("c",), (Level("int4", 10, 2.0), Level("int8", 20, 0.5), Level("f", 80, 0.0)))
TABLE = Group(("t",), (Level("int8", 50, 0.1), Level("f", 200, 0.0)))
GROUPS = (LARGE, SMALL, TABLE)


def test_the_way_takes_what_a_byte_gains_most_by() -> None:
    """By hand: 1.5 / 10, 7 / 100, 0.5 / 60, 1 / 600, 0.1 / 150."""
    assert raised(GROUPS) == [
        (0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 2, 0), (2, 2, 0), (2, 2, 1)
    ]  # fmt: skip


def test_names_go_where_their_level_says() -> None:
    base = LowBit(4, 32, wide=("kept.before",))
    found = with_levels(base, GROUPS, (1, 2, 0))
    assert found.eight == ("a", "b")
    assert found.wide == ("kept.before", "c")
    assert with_levels(base, GROUPS, (0, 0, 0)) == base, "a table has its 8 bits by itself"


def test_what_costs_most_is_told_first() -> None:
    told = choices(GROUPS, (1, 0, 0))
    assert [choice.names for choice in told] == [("a", "b"), ("c",), ("t",)]
    assert (told[0].kept, told[0].bytes, told[0].error, told[0].error_kept) == ("int8", 200, 8, 1)
    assert "int8: a, b (alone in the fewest bits 8.0e+00" in told[0].words


def test_the_first_that_holds_is_found() -> None:
    for first in range(6):
        asked: list[int] = []
        found = least(5, lambda i, first=first, asked=asked: not asked.append(i) and i >= first)
        assert found == min(first, 5)
        assert len(asked) <= 3


def test_weights_of_one_tensor_are_one_group() -> None:
    sources = {"q": ["qkv"], "o": ["out"], "k": ["qkv", "more"], "x": ["more"]}
    assert by_source(list(sources), sources) == [("o",), ("q", "k", "x")]
