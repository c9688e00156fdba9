"""The layers of the ``xlstm`` package's blocks: from stored tensors to canonical weights.

Maths: xLSTM paper (Beck et al. 2024), figures 10 and 11; names and layouts: ``model.spec``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from xlstm_export.errors import CheckpointError
from xlstm_export.families.block_stack_config import (
    FeedForwardConfig,
    MLSTMLayerConfig,
    SLSTMLayerConfig,
    StackConfig,
)
from xlstm_export.families.tensor_table import TensorTable
from xlstm_export.model.spec import (
    Activation,
    FeedForward,
    MLSTMCell,
    SLSTMMixer,
    UpProjectedMLSTMMixer,
)
from xlstm_export.model.weights import Weight

_HEAD_NORM_EPS = 1e-5
_CELL_EPS = 1e-6


@dataclass(frozen=True)
class Reading:
    """One checkpoint while it is read; ``root`` is what the keys of the stack start with."""

    config: StackConfig
    config_path: Path
    stated: frozenset[str]
    """Names of the fields that stand in the file; the others have upstream's defaults."""
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
        return CheckpointError(f"{self.config_path}: {what}")


def mlstm_mixer(
    reading: Reading, layer: MLSTMLayerConfig, at: str
) -> tuple[UpProjectedMLSTMMixer, dict[str, Weight]]:
    """Mixer of an mLSTM block: paper, figure 11. Here the gate names are the true ones."""
    table, size, field = reading.table, reading.model_size, "mlstm_block.mlstm"
    head_norm = table.take(f"{at}.mlstm_cell.outnorm.weight", None)
    inner = head_norm.shape[0]
    weights = {
        "head_norm.weight": plain_norm(head_norm),
        "skip.weight": table.take(f"{at}.learnable_skip", inner),
        "out.weight": table.take(f"{at}.proj_down.weight", size, inner),
    }
    for name, gate in (("input_gate", "igate"), ("forget_gate", "fgate")):
        key = f"{at}.mlstm_cell.{gate}.weight"
        weight = table.take(key, None, 3 * inner)
        reading.agree(f"{field}.num_heads", layer.num_heads, key, weight.shape[0])
        bias = table.take(f"{at}.mlstm_cell.{gate}.bias", layer.num_heads)
        weights |= {f"{name}.weight": weight, f"{name}.bias": bias}
    # upstream takes as many blocks as fit, then divides evenly
    block = inner // max(1, inner // layer.qkv_proj_blocksize)
    for name in "qkv":
        key = f"{at}.{name}_proj.weight"
        found = table.take(key, None, None, None).shape[-1]
        reading.agree(f"{field}.qkv_proj_blocksize", block, key, found)
        weights[f"{name}.weight"] = table.take(key, inner // block, block, block)
    weights |= _convolution(reading, f"{field}.conv1d_kernel_size", layer.conv1d_kernel_size,
                            f"{at}.conv1d.conv", inner)  # fmt: skip
    weights |= _halves(table.take(f"{at}.proj_up.weight", 2 * inner, size), "up.weight", "z.weight")
    weights |= _mlstm_biases(reading, at, inner)
    head = reading.head_size(f"{field}.num_heads", layer.num_heads, inner)
    cell = MLSTMCell(
        layer.num_heads, head, head, gate_soft_cap=0.0, eps=_CELL_EPS, scale_side=1, chunk_size=64
    )
    return (
        UpProjectedMLSTMMixer(cell, inner, block, layer.conv1d_kernel_size, _HEAD_NORM_EPS),
        weights,
    )


def _mlstm_biases(reading: Reading, at: str, inner: int) -> dict[str, Weight]:
    """Biases of the linear maps: all of them or none, by the stack's ``bias``."""
    names = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "proj_up": "up", "proj_down": "out"}
    sizes = {"proj_up": 2 * inner, "proj_down": reading.model_size}
    wanted = reading.config.bias
    weights: dict[str, Weight] = {}
    for stored, name in names.items():
        if reading.expect("bias", wanted, f"{at}.{stored}.bias", wanted):
            bias = reading.table.take(f"{at}.{stored}.bias", sizes.get(stored, inner))
            weights |= (
                _halves(bias, "up.bias", "z.bias") if name == "up" else {f"{name}.bias": bias}
            )
    return weights


def slstm_mixer(
    reading: Reading, layer: SLSTMLayerConfig, at: str
) -> tuple[SLSTMMixer, dict[str, Weight]]:
    """Mixer of an sLSTM block: paper, figure 10.

    Upstream's module ``fgate`` feeds slot i and ``igate`` feeds slot f; R and bias are in order.
    """
    table, size, field = reading.table, reading.model_size, "slstm_block.slstm"
    heads = max(1, layer.num_heads)  # upstream takes 0 and less as 1
    weights: dict[str, Weight] = {}
    gates = {
        "input_gate": "fgate",
        "forget_gate": "igate",
        "cell_input": "zgate",
        "output_gate": "ogate",
    }
    head = reading.head_size(f"{field}.num_heads", heads, size)
    for name, gate in gates.items():
        key = f"{at}.{gate}.weight"
        reading.agree(f"{field}.num_heads", heads, key, table.take(key, None, None, None).shape[0])
        weights[f"{name}.weight"] = table.take(key, heads, head, head)
    weights["R.weight"], weights["R.bias"] = _recurrence(table, f"{at}.slstm_cell", heads, head)
    width = max(0, layer.conv1d_kernel_size)
    weights |= _convolution(
        reading, f"{field}.conv1d_kernel_size", width, f"{at}.conv1d.conv", size
    )
    key, wanted = f"{at}.group_norm.weight", layer.group_norm_weight
    if reading.expect(f"{field}.group_norm_weight", wanted, key, wanted):
        weights["head_norm.weight"] = plain_norm(table.take(key, size))
    return SLSTMMixer(heads, head, width, _HEAD_NORM_EPS), weights


def _recurrence(table: TensorTable, at: str, heads: int, head: int) -> tuple[Weight, Weight]:
    """R [N, H(in), 4, H(out)] and bias [4, N, H] from the layout of either backend.

    vanilla: R [N, 4 H(out), H(in)], bias by gate, head, unit;
    cuda: R [N, H(in), 4 H(out)], bias by head, gate, unit.
    Only R's shape tells them apart; 4H is never H, so it always does.
    """
    bias = table.take(f"{at}._bias_", 4 * heads * head)
    if table.shape(f"{at}._recurrent_kernel_")[1:] == (head, 4 * head):
        kernel = table.take(f"{at}._recurrent_kernel_", heads, head, 4 * head)
        return (
            kernel.with_view(lambda a: a.reshape(heads, head, 4, head)),
            bias.with_view(lambda a: a.reshape(heads, 4, head).transpose(1, 0, 2)),
        )
    kernel = table.take(f"{at}._recurrent_kernel_", heads, 4 * head, head)
    return (
        kernel.with_view(lambda a: a.reshape(heads, 4, head, head).transpose(0, 3, 1, 2)),
        bias.with_view(lambda a: a.reshape(4, heads, head)),
    )


def _convolution(
    reading: Reading, field: str, width: int, at: str, channels: int
) -> dict[str, Weight]:
    """conv.weight [D, W] and conv.bias [D] of a depthwise convolution; nothing for width 0."""
    if not reading.expect(field, width, f"{at}.weight", width > 0):
        return {}
    kernel = reading.table.take(f"{at}.weight", channels, 1, None)
    reading.agree(field, width, f"{at}.weight", kernel.shape[2])
    bias = reading.table.take(f"{at}.bias", channels)
    return {"conv.weight": kernel.with_view(lambda a: a[:, 0, :]), "conv.bias": bias}


def feedforward(
    reading: Reading, config: FeedForwardConfig, at: str
) -> tuple[FeedForward, dict[str, Weight]]:
    """down(act(gate x) * up x); gate and up are stored as one matrix [2U, D], gate first."""
    table, size, field = reading.table, reading.model_size, "slstm_block.feedforward.bias"
    down = table.take(f"{at}.proj_down.weight", size, None)
    hidden = down.shape[1]
    up = table.take(f"{at}.proj_up.weight", 2 * hidden, size)
    weights = {"down.weight": down} | _halves(up, "gate.weight", "up.weight")
    if reading.expect(field, config.bias, f"{at}.proj_up.bias", config.bias):
        bias = table.take(f"{at}.proj_up.bias", 2 * hidden)
        weights |= _halves(bias, "gate.bias", "up.bias")
    if reading.expect(field, config.bias, f"{at}.proj_down.bias", config.bias):
        weights["down.bias"] = table.take(f"{at}.proj_down.bias", size)
    return FeedForward(hidden, cast(Activation, config.act_fn)), weights


def _halves(weight: Weight, first: str, second: str) -> dict[str, Weight]:
    """A weight [2S, ...] as two of [S, ...]."""
    half = weight.shape[0] // 2
    return {
        first: weight.with_view(lambda a: a[:half]),
        second: weight.with_view(lambda a: a[half:]),
    }


def plain_norm(weight: Weight) -> Weight:
    """A norm weight stored as its distance from one."""
    return weight.with_values(lambda a: a + 1)
