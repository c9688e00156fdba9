"""The choice of a token on a GPU, on the emulator, held to numpy's arg max."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import Array
from tests.cuda.on_cpu import ASCENDING, DESCENDING, library, needs_compiler
from tests.plugins.kernels import ALIGNMENT, Buffer, Status
from xlstm_export.errors import EngineError
from xlstm_export.runtime.choice import Choice, likeliest, paired
from xlstm_export.runtime.trt.kernels import CudaKernels

pytestmark = needs_compiler

ODD = np.array(
    [
        [0, 3, 1, 3, 3],
        [-5, -2, -9, -2, -4],
        [1, np.inf, np.nan, np.nan, 7],
        [-np.inf, -1, np.inf, 0, 2],
        [-np.inf] * 5,
        [-1, -0.0, 0.0, -0.0, -3],
        [-np.nan, np.inf, 3, -np.inf, np.nan],
    ],
    np.float32,
)


def choose(
    logits: Array,
    steps: Array,
    *,
    order: int = ASCENDING,
    blocks: int = 0,
    guard: int = ALIGNMENT,
) -> list[Choice]:
    """At step ``steps`` [B] of each row of ``logits`` [B,T,V], every buffer between guards."""
    batch, length, vocabulary = logits.shape
    given, tokens, values = (
        Buffer(nbytes, shift, guard)
        for nbytes, shift in ((logits.nbytes, 4), (8 * batch, 0), (4 * batch, 4))
    )
    given.bytes[:] = logits.reshape(-1).view(np.uint8)
    library().xlstm_emulator_order(order)
    library().xlstm_emulator_most_blocks(blocks)
    starts = (np.arange(batch) * length + steps) * vocabulary
    kernels = CudaKernels(library())
    kernels.likeliest(given.address, starts, vocabulary, tokens.address, values.address, 0)
    for name, buffer in {"logits": given, "tokens": tokens, "values": values}.items():
        buffer.assert_intact(name)
    return paired(tokens.bytes.view(np.int64), values.bytes.view(np.float32))


@pytest.mark.parametrize("order", [ASCENDING, DESCENDING, 7])
@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_equal_ones_and_what_is_no_number(order: int, blocks: int) -> None:
    found = choose(ODD[:, None], np.zeros(len(ODD), int), order=order, blocks=blocks)
    np.testing.assert_array_equal(found, likeliest(ODD))


@pytest.mark.parametrize("vocabulary", [1, 2, 1023, 1024, 1025, 9000])
def test_any_vocabulary_at_any_step(vocabulary: int) -> None:
    """Of few values, so that many are equal."""
    random = np.random.default_rng(vocabulary)
    logits = random.integers(-3, 3, (3, 4, vocabulary)).astype(np.float32)
    steps = np.array([3, 0, 2])
    assert choose(logits, steps) == likeliest(logits[range(3), steps])


def test_the_last_of_a_large_vocabulary() -> None:
    logits = np.zeros((1, 1, 50_304), np.float32)
    logits[..., -1] = 1e-30
    assert choose(logits, np.zeros(1, int)) == [Choice(50_303, float(np.float32(1e-30)))]


def test_more_rows_than_a_launch_takes() -> None:
    logits = np.random.default_rng(0).standard_normal((600, 1, 3)).astype(np.float32)
    library().xlstm_emulator_launches()
    assert choose(logits, np.zeros(600, int)) == likeliest(logits[:, 0])
    assert library().xlstm_emulator_launches() == 3


def test_what_cannot_be_chosen_is_refused() -> None:
    kernels, starts = CudaKernels(library()), np.zeros(1, np.int64)
    for vocabulary in (0, -1, 2**31):
        with pytest.raises(EngineError, match=f"status {Status.BAD_SIZE.value}, "):
            kernels.likeliest(64, starts, vocabulary, 64, 64, 0)
    with pytest.raises(EngineError, match=f"status {Status.NULL_POINTER.value}, "):
        kernels.likeliest(0, starts, 4, 64, 64, 0)
    kernels.likeliest(0, starts[:0], 4, 0, 0, 0)  # no rows
