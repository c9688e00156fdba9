"""The compiled kernels stay in bounds, for every target: registers, spills, shared memory."""

from __future__ import annotations

import shutil

import pytest

from tests.cuda.cubins import needs_cubins, ptx_targets, usages
from tests.cuda.nvcc import TARGETS, known_targets
from xlstm_export.ops.schema import TX_DTYPES

pytestmark = needs_cubins

WIDE = ("float64",)

# Most registers of a thread over all targets, in the single precisions and in double; None where
# there is no such kernel. A block of mlstm_columns or slstm_sequence has up to 512 threads: 128
# is what they may have.
REGISTERS: dict[str, dict[str, tuple[int | None, int | None]]] = {
    "mlstm/plain": {
        "mlstm_gates": (168, 216),
        "mlstm_columns<8>": (112, 128),
        "mlstm_columns<16>": (None, 128),
        "mlstm_columns<32>": (128, None),
    },
    "mlstm/chunk": {
        "chunk_gates": (64, None),
        "chunk_states": (255, None),  # two blocks on a processor
        "chunk_outputs": (255, None),
    },
    "mlstm/step": {
        "mlstm_step<8, true, true>": (128, None),  # four blocks on a processor
        "mlstm_step<4, true, true>": (128, None),  # two, of twice as many threads
        "mlstm_step<8, true, false>": (255, None),
        "mlstm_step<8, false, false>": (255, None),
        "mlstm_step<4, true, false>": (255, None),
        "mlstm_step<4, false, false>": (255, None),
        "mlstm_copy_n_and_m": (32, None),
    },
    "slstm/plain": {
        "slstm_sequence<1>": (96, 128),
        "slstm_sequence<4>": (96, 128),
        "slstm_large": (128, 128),
    },
    "slstm/registers": {
        f"slstm_registers<{units}, {rows}, {rounds}>": (128 if rows == 4 else 255, None)
        for units in (32, 64, 128)
        for rows in (2, 4)
        for rounds in ("false", "true")
    },
    "slstm/clusters": {
        f"slstm_clusters<{shape}, {tiles}, {rounds}>": (168 if shape == 3 else 255, None)
        for shape in range(4)  # the last has 384 threads, the others 256
        for tiles, rounds in ((1, "false"), (2, "false"), (1, "true"))
    },
    "conv1d/plain": {
        "conv1d_outputs<0>": (80, 80),
        "conv1d_outputs<4>": (64, 88),
        "conv1d_state": (96, 80),
    },
    "conv1d/vector": {
        "conv1d_vector<true>": (64, None),  # eight blocks on a processor
        "conv1d_vector<false>": (80, None),
    },
    "likeliest": {"likeliest_tokens": (64, None)},  # a block of 1,024 threads
}
HALVES = ("bfloat16", "float16")
ELEMENTS = {
    "mlstm/chunk": HALVES, "slstm/registers": HALVES, "slstm/clusters": HALVES,
    "likeliest": ("float32",),
}  # fmt: skip
"""Types of a file's kernels, where they are not made for all."""
STACK = {("chunk_outputs", "float16"): 80}  # units of C beside what bfloat16 has too
"""Most bytes of local memory, where it is not 0."""
SYSTEM_SHARED = 1024
"""Bytes that sm_90 and later keep for themselves in every block's shared memory."""


def targets() -> set[int]:
    return {usage.target for usage in usages()}


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc to ask for its targets")
def test_every_target_is_there_and_ptx_for_later_ones() -> None:
    assert {80, 86, 89, 90} <= targets()
    assert targets() == set(known_targets(TARGETS))
    assert ptx_targets() == {max(targets())}


def test_every_kernel_is_there_for_every_target_and_type() -> None:
    wanted = {
        (kernel, tx, target)
        for name, limits in REGISTERS.items()
        for kernel, most in limits.items()
        for tx in ELEMENTS.get(name, TX_DTYPES)
        for target in targets()
        if most[tx in WIDE] is not None
    }
    assert {(u.kernel, u.tx, u.target) for u in usages()} == wanted


def test_registers_stay_in_bounds_and_nothing_is_spilled() -> None:
    most = {kernel: both for limits in REGISTERS.values() for kernel, both in limits.items()}
    over = [
        u
        for u in usages()
        if u.stack > STACK.get((u.kernel, u.tx), 0)
        or u.registers > (most[u.kernel][u.tx in WIDE] or 0)
    ]
    assert not over, "\n".join(map(str, over))


def test_all_shared_memory_is_asked_for_by_the_launch() -> None:
    """The emulator sees and bounds that alone."""
    given = [u for u in usages() if u.static_shared > (SYSTEM_SHARED if u.target >= 90 else 0)]
    assert not given, "\n".join(map(str, given))
