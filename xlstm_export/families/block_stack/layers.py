"""The layers of the ``xlstm`` package's blocks: from stored tensors to canonical weights.

Maths: xLSTM paper (Beck et al. 2024), figures 10 and 11; names and layouts: ``model.layers``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from xlstm_export.checkpoint.tensor_table import LayerTensors, TensorTable
from xlstm_export.errors import CheckpointError
from xlstm_export.families.block_stack.config import (
    FeedForwardConfig,
    MLSTMLayerConfig,
    SLSTMLayerConfig,
    StackConfig,
)
from xlstm_export.model.layers.feed_forward import Activation, FeedForward
from xlstm_export.model.layers.mlstm import MLSTMCell
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.layers.up_projected_mlstm import UpProjectedMLSTM
from xlstm_export.model.weights import Weight

_HEAD_NORM_EPS = 1e-5
_CELL_EPS = 1e-6

MLSTM_MAPS = {
    "q_proj": ("q",), "k_proj": ("k",), "v_proj": ("v",), "proj_up": ("up", "z"),
    "proj_down": ("out",),
}  # fmt: skip
"""Linear maps of an mLSTM block, and the layer's own that each holds."""


@dataclass(frozen=True)
class Reading:
    """One checkpoint while it is read; ``root`` is what the keys of the stack start with."""

    config: StackConfig
    origin: str
    """Where the configuration stands, for messages."""
    stated: frozenset[str]
    """Names of the fields that stand there; the others have upstream's defaults."""
    table: TensorTable
    root: str
    model_size: int

    def agree(self, field: str, value: int, key: str, found: int) -> None:
        """Raise CheckpointError unless ``field`` of the configuration says what ``key`` shows."""
        if value != found:
            raise self.contradiction(f"{self.says(field, value)}, but tensor {key} says {found}")

    def expect(self, field: str, value: object, key: str, wanted: bool) -> bool:
        """``wanted``; raise CheckpointError unless ``key`` is there exactly where it is."""
        if (key in self.table) != wanted:
            state = "missing" if wanted else "there"
            raise self.contradiction(f"{self.says(field, value)}, but tensor {key} is {state}")
        return wanted

    def head_size(self, field: str, heads: int, size: int) -> int:
        """``size`` / ``heads``; raise CheckpointError where it is not whole."""
        if size % heads:
            raise self.contradiction(f"{self.says(field, heads)}, which does not divide {size}")
        return size // heads

    def says(self, field: str, value: object) -> str:
        """That ``field`` is ``value``, and by whose word."""
        source = "" if field in self.stated else " (upstream's default, the file does not say)"
        return f"{field} is {value}{source}"

    def contradiction(self, what: str) -> CheckpointError:
        """The error that configuration and weights do not fit."""
        return CheckpointError(f"{self.origin}: {what}")


def read_mlstm(
    reading: Reading, config: MLSTMLayerConfig, at: str
) -> tuple[UpProjectedMLSTM, dict[str, Weight]]:
    """mLSTM of a block: paper, figure 11. Here the gate names are the true ones."""
    table, size, field = reading.table, reading.model_size, "mlstm_block.mlstm"
    inner = table.size(
        "inner size", (f"{at}.mlstm_cell.outnorm.weight", 0), (f"{at}.learnable_skip", 0),
        (f"{at}.proj_down.weight", 1), (f"{at}.proj_up.weight", 0, 2),
        (f"{at}.conv1d.conv.weight", 0), (f"{at}.conv1d.conv.bias", 0),
    )  # fmt: skip
    for gate in ("igate", "fgate"):
        key = f"{at}.mlstm_cell.{gate}.weight"
        reading.agree(f"{field}.num_heads", config.num_heads, key, table.shape(key)[0])
    # upstream takes as many blocks as fit, then divides evenly
    block = inner // max(1, inner // config.qkv_proj_blocksize)
    for name in "qkv":
        key = f"{at}.{name}_proj.weight"
        reading.agree(f"{field}.qkv_proj_blocksize", block, key, table.shape(key)[-1])
    width = _conv_width(reading, f"{field}.conv1d_kernel_size", config.conv1d_kernel_size, at)
    head = reading.head_size(f"{field}.num_heads", config.num_heads, inner)
    cell = MLSTMCell(
        config.num_heads, head, head, gate_soft_cap=0.0, eps=_CELL_EPS, scale_side=1, chunk_size=64
    )
    layer = UpProjectedMLSTM(size, cell, inner, block, width, _HEAD_NORM_EPS)
    tensors = LayerTensors(table, layer)
    for name in MLSTM_MAPS:
        reading.expect("bias", reading.config.bias, f"{at}.{name}.bias", reading.config.bias)
    take_mlstm(tensors, at, has_biases=reading.config.bias)
    take_causal_conv(tensors, f"{at}.conv1d.conv", inner, width)
    return layer, tensors.weights


def take_mlstm(tensors: LayerTensors, at: str, *, has_biases: bool) -> None:
    """The weights of an ``UpProjectedMLSTM`` stored below ``at``, all but its convolution.

    ``has_biases``: whether the linear maps have them, all five.
    """
    tensors.take_norm("head_norm.weight", f"{at}.mlstm_cell.outnorm.weight")
    tensors.take("skip.weight", f"{at}.learnable_skip")
    for name, gate in (("input_gate", "igate"), ("forget_gate", "fgate")):
        for leaf in ("weight", "bias"):
            tensors.take(f"{name}.{leaf}", f"{at}.mlstm_cell.{gate}.{leaf}")
    for leaf in ("weight", "bias") if has_biases else ("weight",):
        for stored, names in MLSTM_MAPS.items():
            tensors.split([f"{name}.{leaf}" for name in names], f"{at}.{stored}.{leaf}")


def read_slstm(
    reading: Reading, config: SLSTMLayerConfig, at: str
) -> tuple[SLSTM, dict[str, Weight]]:
    """sLSTM of a block: paper, figure 10.

    Upstream's module ``fgate`` feeds slot i and ``igate`` feeds slot f; R and bias are in order.
    """
    table, size, field = reading.table, reading.model_size, "slstm_block.slstm"
    heads = max(1, config.num_heads)  # upstream takes 0 and less as 1
    gates = {
        "input_gate": "fgate",
        "forget_gate": "igate",
        "cell_input": "zgate",
        "output_gate": "ogate",
    }
    head = reading.head_size(f"{field}.num_heads", heads, size)
    for gate in gates.values():
        key = f"{at}.{gate}.weight"
        reading.agree(f"{field}.num_heads", heads, key, table.shape(key)[0])
    width = max(0, config.conv1d_kernel_size)
    width = _conv_width(reading, f"{field}.conv1d_kernel_size", width, at)
    layer = SLSTM(heads, head, width, _HEAD_NORM_EPS)
    tensors = LayerTensors(table, layer)
    for name, gate in gates.items():
        tensors.take(f"{name}.weight", f"{at}.{gate}.weight")
    _take_recurrence(tensors, table, f"{at}.slstm_cell", heads, head)
    take_causal_conv(tensors, f"{at}.conv1d.conv", size, width)
    key, wanted = f"{at}.group_norm.weight", config.group_norm_weight
    if reading.expect(f"{field}.group_norm_weight", wanted, key, wanted):
        tensors.take_norm("head_norm.weight", key)
    return layer, tensors.weights


def _take_recurrence(
    tensors: LayerTensors, table: TensorTable, at: str, heads: int, head: int
) -> None:
    """R [N, H(in), 4, H(out)] and bias [4, N, H] from the layout of either backend.

    vanilla: R [N, 4 H(out), H(in)], bias by gate, head, unit;
    cuda: R [N, H(in), 4 H(out)], bias by head, gate, unit.
    Only R's shape tells them apart; 4H is never H, so it always does.
    """
    kernel, bias, flat = f"{at}._recurrent_kernel_", f"{at}._bias_", (4 * heads * head,)
    if table.shape(kernel)[1:] == (head, 4 * head):
        tensors.take(
            "R.weight", kernel, (heads, head, 4 * head),
            lambda a: a.reshape(heads, head, 4, head),
        )  # fmt: skip
        tensors.take("R.bias", bias, flat, lambda a: a.reshape(heads, 4, head).transpose(1, 0, 2))
        return
    tensors.take(
        "R.weight", kernel, (heads, 4 * head, head),
        lambda a: a.reshape(heads, 4, head, head).transpose(0, 3, 1, 2),
    )  # fmt: skip
    tensors.take("R.bias", bias, flat, lambda a: a.reshape(4, heads, head))


def _conv_width(reading: Reading, field: str, width: int, at: str) -> int:
    """``width``; raise CheckpointError unless the kernel is as wide, and missing for 0."""
    key = f"{at}.conv1d.conv.weight"
    if reading.expect(field, width, key, width > 0):
        reading.agree(field, width, key, reading.table.shape(key)[-1])
    return width


def take_causal_conv(tensors: LayerTensors, key: str, channels: int, width: int) -> None:
    """conv.weight [D, W] and conv.bias [D] of a depthwise convolution; nothing for width 0."""
    if width:
        tensors.take("conv.weight", f"{key}.weight", (channels, 1, width), lambda a: a[:, 0, :])
        tensors.take("conv.bias", f"{key}.bias")


def read_feed_forward(
    reading: Reading, config: FeedForwardConfig, at: str
) -> tuple[FeedForward, dict[str, Weight]]:
    """down(act(gate x) * up x); gate and up are stored as one matrix [2U, D], gate first."""
    table, field = reading.table, "slstm_block.feedforward.bias"
    hidden = table.size(
        "feed-forward size", (f"{at}.proj_down.weight", 1), (f"{at}.proj_up.weight", 0, 2),
        (f"{at}.proj_up.bias", 0, 2),
    )  # fmt: skip
    layer = FeedForward(reading.model_size, hidden, cast(Activation, config.act_fn))
    tensors = LayerTensors(table, layer)
    tensors.take("down.weight", f"{at}.proj_down.weight")
    tensors.split(("gate.weight", "up.weight"), f"{at}.proj_up.weight")
    if reading.expect(field, config.bias, f"{at}.proj_up.bias", config.bias):
        tensors.split(("gate.bias", "up.bias"), f"{at}.proj_up.bias")
    if reading.expect(field, config.bias, f"{at}.proj_down.bias", config.bias):
        tensors.take("down.bias", f"{at}.proj_down.bias")
    return layer, tensors.weights
