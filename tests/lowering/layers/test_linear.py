"""Merged and packed projections compute what the separate ones would."""

from __future__ import annotations

import numpy as np
import pytest

from xlstm_export.lowering.linear import BLOCK_WIDTH, pack_blocks, packed_width


@pytest.mark.parametrize(
    ("blocks", "size", "width"),
    [(256, 4, 16), (12, 4, 16), (6, 4, 12), (7, 4, 4), (3, 96, 96), (32, 1, 16), (1, 64, 64)],
)
def test_packed_width(blocks: int, size: int, width: int) -> None:
    assert packed_width(blocks, size) == width
    assert blocks * size % width == 0
    assert width <= max(BLOCK_WIDTH, size)


@pytest.mark.parametrize(("blocks", "size"), [(256, 4), (12, 4), (3, 96), (16, 1), (6, 5)])
def test_packed_blocks_are_the_same_map(blocks: int, size: int) -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((blocks, size, size))  # [block, out, in]
    x = random.standard_normal(blocks * size)
    expected = np.einsum("goi,gi->go", weight, x.reshape(blocks, size)).ravel()
    width = packed_width(blocks, size)
    packed = pack_blocks(weight, width)  # [group, in, out]
    got = np.einsum("gio,gi->go", packed, x.reshape(-1, width)).ravel()
    np.testing.assert_allclose(got, expected, rtol=1e-12)
