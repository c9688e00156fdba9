"""The roofline table: the launches are the launchers' own, and what misses its target is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.gpu.model import (
    CELL,
    CLOCK,
    CLUSTER,
    MMA_CLOCKS,
    PARTS,
    PROCESSORS,
    STEP,
    TARGETS,
    TENSOR,
    Launch,
    chunk_flop,
    launches_of,
    modelled,
    row_of,
    table,
)
from benchmarks.gpu.workloads import Workload
from tests.cuda.on_cpu import needs_compiler

pytestmark = needs_compiler

TX = "bfloat16"


def workload(title: str) -> Workload:
    return next(w for w in modelled() if w.title == title)


def test_every_target_has_a_workload() -> None:
    assert {w.title for w in modelled()} == set(TARGETS)


@pytest.mark.parametrize(
    ("title", "variant", "launch"),
    [
        ("sLSTM 4x512, B=1, T=2048", "clusters", (64, 256, 16)),
        ("sLSTM 4x512, B=256, T=64", "clusters", (1024, 256, 8)),  # eight rows each: 128 of 8
        ("sLSTM 1x768, B=16, T=1024", "clusters", (64, 384, 16)),
        ("sLSTM 4x128, B=256, T=64", "registers", (256, 512, 1)),
        ("mLSTM 8x256/512, B=1, T=1", "step", (128, 128, 1)),
    ],
)
def test_launches_are_asked_of_the_launchers(
    title: str, variant: str, launch: tuple[int, int, int]
) -> None:
    name, (made,) = launches_of(workload(title), TX)
    assert name == variant
    assert (made.blocks, made.threads, made.cluster) == launch


def test_waves_count_what_limits_the_blocks_of_a_processor() -> None:
    assert Launch(132, 1024, 0, 1).waves(32) == 0.5
    assert Launch(132, 1024, 0, 1).waves(64) == 1.0  # registers
    assert Launch(264, 128, 100 << 10, 1).waves(32) == 1.0  # shared memory
    assert Launch(64, 256, 100 << 10, 16).waves(255) == 0.5  # in clusters: 128 of 132


def test_a_step_is_bound_by_its_bytes_and_misses_are_named() -> None:
    step = row_of(workload("mLSTM 8x256/512, B=256, T=1"), TX)
    assert step.limit == "bytes"
    assert step.nbytes / 3.0e12 < step.seconds < 1.1 * step.nbytes / 3.0e12
    assert not step.misses
    lines = table([step, replace(step, target=step.seconds / 2.1)]).splitlines()
    assert [("MISSES" in line) for line in lines] == [False, False, True]


def test_no_shape_misses_its_target_by_more_than_twice() -> None:
    """Where time is in chunks the tests' library cuts it as no GPU would: waves are left out."""
    for title, (target, _) in TARGETS.items():
        if launches_of(workload(title), TX)[0] != "chunk":
            assert not row_of(workload(title), TX).misses, title
        elif target is not None:
            assert sum(chunk_flop(workload(title))) / TENSOR < 1.5 * target, title


def test_targets_leave_time_for_the_products() -> None:
    """Of mma.sync on all processors, y in two terms and keys in three; see TARGETS."""
    for title, latency in (("sLSTM 4x128, B=256, T=64", 2 * CELL),
                           ("sLSTM 4x512, B=256, T=64", CELL + STEP + CLUSTER)):  # fmt: skip
        B, N, H = (workload(title).case.size[d] for d in "BNH")
        products = N * (4 * H / 16) * (H / 16) * (2 * B / 8)
        seconds = products * MMA_CLOCKS / (PROCESSORS * PARTS) / CLOCK + latency
        assert seconds == pytest.approx(TARGETS[title][0], rel=0.03)
    small, large = "mLSTM 8x256/512, B=32, T=2048", "mLSTM 4x1024/1024, B=32, T=2048"
    more = sum(chunk_flop(workload(large))) / sum(chunk_flop(workload(small)))
    assert more * (TARGETS[small][0] or 0) == pytest.approx(TARGETS[large][0], rel=0.03)
