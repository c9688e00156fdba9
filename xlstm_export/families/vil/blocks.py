"""The blocks of a Vision-LSTM: from stored tensors to layers and canonical weights.

Every second block reads the patches from their end. Maths: Vision-LSTM (Alkin et al. 2024), figure
1, around the mLSTM of the xLSTM paper, figure 11.
"""

from __future__ import annotations

from dataclasses import dataclass

from xlstm_export.checkpoint.tensor_table import LayerTensors, TensorTable, placed
from xlstm_export.errors import CheckpointError
from xlstm_export.families.block_stack.layers import take_causal_conv, take_mlstm
from xlstm_export.families.vil.keys import Keys
from xlstm_export.model.layer import Layer
from xlstm_export.model.layers.flipped import Flipped
from xlstm_export.model.layers.mlstm import MLSTMCell
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.layers.up_projected_mlstm import UpProjectedMLSTM
from xlstm_export.model.weights import Weight

BLOCK_EPS = 1e-5
"""Of a block's norm, and of the norm of each head."""
_CELL_EPS = 1e-6


@dataclass(frozen=True)
class Blocks:
    """Where the blocks are read from, and what they have in common.

    ``has_biases``: of the linear maps; ``has_norm_biases``: of the norms. All blocks or none have
    them. ``grid``: rows and columns of the patches.
    """

    table: TensorTable
    origin: str
    keys: Keys
    model_size: int
    grid: tuple[int, int]
    has_biases: bool
    has_norm_biases: bool


def read_blocks(blocks: Blocks) -> tuple[list[tuple[str, Layer]], dict[str, Weight]]:
    """Layers by path, and their weights by full name.

    Raises CheckpointError, UnsupportedModelError that name the tensor.
    """
    layers: list[tuple[str, Layer]] = []
    weights: dict[str, Weight] = {}
    norm = Norm("layer", BLOCK_EPS, blocks.model_size)
    for index in range(blocks.keys.blocks):
        mlstm, own = _mlstm(blocks, index)
        inner = Flipped(mlstm) if index % 2 else mlstm
        layers.append((f"layers.{index}.mlstm", Residual(norm, inner, "mixer_norm")))
        weights |= placed(f"layers.{index}.mlstm", own)
        normed = shifted_norm(
            blocks.table, norm, blocks.keys.norm_of(index), has_bias=blocks.has_norm_biases
        )
        weights |= placed(f"layers.{index}.mixer_norm", normed)
    return layers, weights


def shifted_norm(table: TensorTable, norm: Norm, key: str, *, has_bias: bool) -> dict[str, Weight]:
    """The weights of a norm whose weight is stored as its distance from one."""
    tensors = LayerTensors(table, norm)
    tensors.take_norm("weight", f"{key}.weight")
    if has_bias:
        tensors.take("bias", f"{key}.bias")
    return tensors.weights


def _mlstm(blocks: Blocks, index: int) -> tuple[UpProjectedMLSTM, dict[str, Weight]]:
    table, keys, at = blocks.table, blocks.keys, blocks.keys.layer_of(index)
    convolution = keys.convolution_of(index)
    inner = table.size(
        "inner size", (f"{at}.mlstm_cell.outnorm.weight", 0), (f"{at}.learnable_skip", 0),
        (f"{at}.proj_down.weight", 1), (f"{at}.proj_up.weight", 0, 2),
        (f"{convolution}.weight", 0), (f"{convolution}.bias", 0),
    )  # fmt: skip
    heads = table.size(
        "number of heads", (f"{at}.mlstm_cell.igate.bias", 0), (f"{at}.mlstm_cell.fgate.bias", 0),
        (f"{at}.mlstm_cell.igate.weight", 0), (f"{at}.mlstm_cell.fgate.weight", 0),
    )  # fmt: skip
    block = table.size("block size", *((f"{at}.{name}_proj.weight", 2) for name in "qkv"))
    for what, size in (("heads", heads), ("channels a block", block)):
        if inner % size:
            raise CheckpointError(
                f"{blocks.origin}: {at}: {size} {what} do not divide its inner size {inner}"
            )
    width = table.shape(f"{convolution}.weight")[-1]
    if not (keys.is_causal or width % 2):
        raise CheckpointError(
            f"{blocks.origin}: tensor {convolution}.weight is {width} wide; a convolution over the "
            "grid has a middle, and so is odd"
        )
    cell = MLSTMCell(
        heads, inner // heads, inner // heads, gate_soft_cap=0.0, eps=_CELL_EPS, scale_side=1
    )
    grid = None if keys.is_causal else blocks.grid
    layer = UpProjectedMLSTM(blocks.model_size, cell, inner, block, width, BLOCK_EPS, grid)
    tensors = LayerTensors(table, layer)
    take_mlstm(tensors, at, has_biases=blocks.has_biases)
    if blocks.has_norm_biases:
        tensors.take("head_norm.bias", f"{at}.mlstm_cell.outnorm.bias")
    if grid is None:
        take_causal_conv(tensors, convolution, inner, width)
    else:
        for leaf in ("weight", "bias"):
            tensors.take(f"conv.{leaf}", f"{convolution}.{leaf}")
    return layer, tensors.weights
