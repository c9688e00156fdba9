"""The random checkpoints that ``evidence`` validates, in the layouts of upstream's packages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.families.block_stack_checkpoints import make_block_stack
from tests.families.large_checkpoints import make_hf, make_xlstm_large
from tests.families.tirex2_checkpoints import write_tirex2
from tests.families.tirex_checkpoints import make_tirex
from tests.families.vil_checkpoints import make_vil

_NETWORKS = Path(__file__).resolve().parents[1] / "recipes" / "nearest_neighbour"
_LARGE: dict[str, Any] = {"embedding_dim": 256, "num_heads": 4, "num_blocks": 4, "vocab_size": 1000}

MAKERS: dict[str, Callable[[Path], object]] = {
    "block-stack": lambda folder: make_block_stack(
        folder, embedding_dim=128, num_blocks=7, slstm_at=[3], vocab_size=1000
    ),
    "xlstm-large": lambda folder: make_xlstm_large(folder, **_LARGE),
    "hf": lambda folder: make_hf(folder, dtype="bfloat16", shards=3, **_LARGE),
    "tirex": lambda folder: make_tirex(folder, blocks=4, size=128, heads=4, context=512, patch=32),
    "tirex2": lambda folder: write_tirex2(folder),
    "vil": lambda folder: make_vil(folder, size=96, blocks=8, grid=(6, 6), patch=8, classes=100),
    "vil-one": lambda folder: make_vil(folder, version=1, size=96, blocks=4, grid=(6, 6), patch=8),
}
"""Name -> what writes such a checkpoint into a folder."""


def nearest_neighbour() -> tuple[Any, Any]:
    """The trained network of recipes/nearest_neighbour, and inputs for it."""
    import torch

    sys.path.insert(0, str(_NETWORKS))
    try:
        from network import load  # type: ignore[import-not-found]
        from task import INPUTS  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(_NETWORKS))
    generator = torch.Generator().manual_seed(0)
    return load("mlstm", _NETWORKS / "mlstm"), torch.randn(2, 24, INPUTS, generator=generator)
