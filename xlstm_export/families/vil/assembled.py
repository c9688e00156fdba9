"""A Vision-LSTM in torch, assembled from the ``xlstm`` package's mLSTM layer and norms.

Upstream's module holds a copy of them; what is around them is written from the paper (Alkin et al.
2024): patches, positions, two directions, the convolution over the grid, pooling and head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig
from xlstm.components.ln import LayerNorm, MultiHeadLayerNorm

from xlstm_export.checkpoint.source import Checkpoint
from xlstm_export.families.vil.keys import Keys
from xlstm_export.model.layers.end_pooling import EndPooling
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.patch_convolution import PatchConvolution
from xlstm_export.model.layers.up_projected_mlstm import UpProjectedMLSTM

_EPS = {1: (1e-5, 1e-6), 2: (1e-6, 1e-5)}
"""Of the norm after the blocks and the last one, by version; the reader has its own."""


def assembled_keys(blocks: int) -> Keys:
    """The names in ``Assembled``, of either version."""
    ends = ("first_norm", "last_norm", "head")
    return Keys(1, blocks, "", "norm", "layer", "conv1d.conv", *ends)


class Assembled(nn.Module):
    """Images [B,C,H,W] to logits, or to hidden states [B,T,D]."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Random weights in the sizes of ``checkpoint``."""
        super().__init__()
        spec, fields = checkpoint.spec, checkpoint.fields
        named = dict(spec.layers)
        patches: PatchConvolution = fields.images.patches
        size = patches.model_size
        kernel: Any = nn.Conv2d(patches.channels, size, patches.patch, patches.stride)
        self.patch_embed = nn.ModuleDict({"proj": kernel})
        self.pos_embed = nn.ParameterDict({"embed": torch.zeros(1, *fields.images.grid, size)})
        steps = fields.images.positions.positions
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "norm": LayerNorm(size, bias=fields.has_norm_biases),
                "layer": _layer(layer, steps, fields.has_biases, fields.has_norm_biases),
            })
            for layer in spec.layers_of(UpProjectedMLSTM)
        )  # fmt: skip
        self.first_norm: nn.Module = nn.Identity()
        self.last_norm: nn.Module = nn.Identity()
        self.head: nn.Module = nn.Identity()
        first_eps, last_eps = _EPS[fields.keys.version]
        if "out_norm" in named:
            self.first_norm = LayerNorm(size, bias=fields.has_norm_biases, eps=first_eps)
        if isinstance(norm := named.get("head_norm"), Norm):
            self.last_norm = nn.LayerNorm(norm.size, eps=last_eps)
        if isinstance(head := named.get("head"), LogitHead):
            self.head = nn.Linear(head.model_size, head.vocab_size)
        self._pooling = next(iter(spec.layers_of(EndPooling)), None)

    def forward(self, images: Tensor) -> Tensor:
        """Every second block reads the patches from their end, and gives them back in order."""
        x = self.patch_embed["proj"](images).movedim(1, -1) + self.pos_embed["embed"]
        x = x.flatten(1, 2)
        block: Any
        for index, block in enumerate(self.blocks):
            normed = block["norm"](x)
            if index % 2:
                x = x + block["layer"](normed.flip(1)).flip(1)
            else:
                x = x + block["layer"](normed)
        x = self.first_norm(x)
        if self._pooling is not None:
            first, last = x[:, 0], x[:, -1]
            is_mean = self._pooling.joined == "mean"
            x = (first + last) / 2 if is_mean else torch.cat([first, last], dim=-1)
        result: Tensor = self.head(self.last_norm(x))
        return result


def _layer(layer: UpProjectedMLSTM, steps: int, has_biases: bool, has_norm_biases: bool) -> Any:
    """The package's layer; what version 2 does otherwise is put in its place."""
    module: Any = mLSTMLayer(
        mLSTMLayerConfig(
            embedding_dim=layer.model_size, num_heads=layer.cell.heads, context_length=steps,
            conv1d_kernel_size=layer.conv_width, qkv_proj_blocksize=layer.block_size,
            proj_factor=layer.inner_size / layer.model_size, round_proj_up_to_multiple_of=1,
            bias=has_biases,
        )
    )  # fmt: skip
    if layer.grid is not None:
        module.conv1d = _GridConvolution(layer.inner_size, layer.conv_width, layer.grid)
    if has_norm_biases:
        module.mlstm_cell.outnorm = MultiHeadLayerNorm(layer.inner_size, bias=True)
    return module


class _GridConvolution(nn.Module):
    """Each channel of x [B,T,E] by itself over the grid that T is."""

    def __init__(self, channels: int, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, width, padding=width // 2, groups=channels)
        self._grid = grid

    def forward(self, x: Tensor) -> Tensor:
        image = x.reshape(x.shape[0], *self._grid, -1).movedim(-1, 1)
        result: Tensor = self.conv(image).movedim(1, -1).flatten(1, 2)
        return result
