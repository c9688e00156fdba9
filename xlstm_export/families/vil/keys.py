"""What the tensors of a Vision-LSTM are called: upstream renames them when it loads a file.

Three layouts: the files that are published (as they were trained), the module VisionLSTM (version
1), and the module VisionLSTM2 (version 2), whose blocks come in pairs. Source: NX-AI/vision-lstm,
hubconf.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from xlstm_export.errors import CheckpointError

PATCHES, POSITIONS = "patch_embed.proj", "pos_embed"
TABLE = f"{POSITIONS}.embed"
DIRECTIONS = ("rowwise_from_top_left", "rowwise_from_bot_right")
"""The two blocks of a pair; the second reads the patches from their end."""

_CONVOLUTIONS = ("conv1d.conv", "conv.conv", "conv1d", "conv")
"""Causal under both names, then over the grid."""

_TRAINED = re.compile(r"(xlstm\.)?blocks\.(\d+)\.xlstm\.")
_SINGLE = re.compile(r"()blocks\.(\d+)\.layer\.")
_PAIRED = re.compile(rf"()blocks\.(\d+)\.(?:{'|'.join(DIRECTIONS)})\.layer\.")


@dataclass(frozen=True)
class Keys:
    """The names of one layout, of ``blocks`` blocks; all without the dot that follows."""

    version: Literal[1, 2]
    blocks: int
    stack: str
    norm: str
    layer: str
    convolution: str
    first_norm: str
    last_norm: str
    head: str
    paired: bool = False

    @property
    def is_causal(self) -> bool:
        """Whether the convolution is along the sequence, and not over the grid."""
        return self.convolution.endswith(".conv")

    def block(self, index: int) -> str:
        """Where block ``index`` stands."""
        if self.paired:
            return f"{self.stack}blocks.{index // 2}.{DIRECTIONS[index % 2]}"
        return f"{self.stack}blocks.{index}"

    def layer_of(self, index: int) -> str:
        """The mLSTM of block ``index``."""
        return f"{self.block(index)}.{self.layer}"

    def norm_of(self, index: int) -> str:
        """The norm of block ``index``."""
        return f"{self.block(index)}.{self.norm}"

    def convolution_of(self, index: int) -> str:
        """The convolution of block ``index``."""
        return f"{self.layer_of(index)}.{self.convolution}"

    def places(self) -> list[str]:
        """Where tensors stand, in the same order for every layout; inner places come first."""
        in_blocks = [
            place
            for index in range(self.blocks)
            for place in (self.convolution_of(index), self.layer_of(index), self.norm_of(index))
        ]
        return [PATCHES, POSITIONS, *in_blocks, self.first_norm, self.last_norm, self.head]


def module_keys(version: Literal[1, 2], blocks: int, is_causal: bool) -> Keys:
    """The names in upstream's module of ``version``."""
    if version == 1:
        ends = ("legacy_norm", "norm", "head")
        return Keys(1, blocks, "", "norm", "layer", "conv1d.conv", *ends)
    convolution = "conv.conv" if is_causal else "conv"
    ends = ("norm", "legacy_norm", "head")
    return Keys(2, blocks, "", "norm", "layer", convolution, *ends, paired=True)


def find_keys(names: Collection[str], origin: str) -> Keys:
    """The layout of the tensors ``names``. Raises CheckpointError that says what is missing."""
    paired, single, trained = (
        [match for name in names if (match := pattern.match(name))]
        for pattern in (_PAIRED, _SINGLE, _TRAINED)
    )
    found = paired or single or trained
    if not found:
        raise CheckpointError(
            f"{origin}: no blocks of a Vision-LSTM: none of blocks.0.layer.*, "
            f"blocks.0.{DIRECTIONS[0]}.layer.*, xlstm.blocks.0.xlstm.* is there"
        )
    blocks = 1 + max(int(match[2]) for match in found)
    convolution = _convolution(names, origin)
    is_causal = convolution.endswith(".conv")
    if not trained or paired or single:
        return module_keys(2 if paired else 1, blocks * 2 if paired else blocks, is_causal)
    stack = trained[0][1] or ""
    ends = (f"{stack}post_blocks_norm", "head.0", "head.1")
    # version 1 has heads; it differs by the constants of its last norms
    is_first = is_causal and "head.1.weight" in names
    return Keys(1 if is_first else 2, blocks, stack, "xlstm_norm", "xlstm", convolution, *ends)


def _convolution(names: Collection[str], origin: str) -> str:
    """What the convolution is called below a layer, by the first layer that has one."""
    for name in _CONVOLUTIONS:
        pattern = re.compile(rf"blocks\.\d+\..*\b(layer|xlstm)\.{re.escape(name)}\.weight$")
        if any(pattern.search(key) for key in names):
            return name
    raise CheckpointError(
        f"{origin}: no block has a convolution: tensor conv1d.conv.weight, conv1d.weight or "
        "conv.weight is missing"
    )
