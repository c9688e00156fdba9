"""What the compiler made of the loops that take the time: products, wide loads, nothing spilled.

A loop that has lost its tensor cores, reads shared memory as any memory, or two bytes at a time,
is right and slow: no other test would see it without a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.cuda.cubins import Usage, count, instructions, loop_of, needs_cubins, usages

pytestmark = needs_cubins


@dataclass(frozen=True)
class Loop:
    """A kernel's, in bfloat16, on GPUs of ``since`` and later."""

    kernel: str
    products: int
    """Of 16 x 8 x 16."""
    least: dict[str, int] = field(default_factory=dict)
    """Least number of each operation."""
    since: int = 80


LOOPS = (
    # a chunk: 64 x 64 of C by 64 steps, in three terms, over four warps
    Loop("chunk_states", 96, {"LDGSTS.128": 8, "LDSM.4": 20}),
    Loop("chunk_outputs", 90, {"LDGSTS.128": 32, "LDSM.4": 28}),
    # eight vectors of C on their way at once, of each of two variants of a loop
    Loop("mlstm_step<8, true, true>", 0, {"LDG.128": 16, "STG.128": 16}),
    # a step: gates of 2 x 16 rows by units / 16 inputs for each group of eight units of a warp
    Loop("slstm_registers<128, 2, false>", 32, {"LDS.128": 4}),
    Loop("slstm_registers<128, 4, false>", 16, {"LDS.128": 4}),
    # the same; for each 32 inputs a load of y and, where they are stored, four of R
    Loop("slstm_clusters<0, 1, false>", 32, {"LDS.128": 8}, since=90),
    Loop("slstm_clusters<2, 2, false>", 128, {"LDS.128": 8 * 4 + 16 * 2}, since=90),
    Loop("slstm_clusters<3, 2, false>", 96, {"LDS.128": 7 * 4 + 12 * 2}, since=90),
)
NEVER = ("LDL", "STL", "LD")
"""Local memory, and loads from a place that may be any: they are slower than shared memory's."""


def made(loop: Loop) -> list[Usage]:
    return [
        u
        for u in usages()
        if (u.kernel, u.tx) == (loop.kernel, "bfloat16") and u.target >= loop.since
    ]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.kernel)
def test_loops_are_products_and_wide_loads(loop: Loop) -> None:
    assert made(loop)
    for usage in made(loop):
        found = loop_of(instructions(usage), "HMMA" if loop.products else "LDG.128")
        assert count(found, "HMMA") == loop.products, usage
        assert count(found, "HMMA.16816") == loop.products, usage
        few = {name: count(found, name) for name, n in loop.least.items() if count(found, name) < n}
        assert not few, usage
        assert not [name for name in NEVER if count(found, name)], usage


def test_the_convolution_reads_no_channel_alone() -> None:
    loop = Loop("conv1d_vector<true>", 0)
    for usage in made(loop):
        body = instructions(usage)
        wide = count(body, "LDG.128") + count(body, "LDG.64")
        assert count(body, "LDG") - wide == 1, usage  # a row's length
