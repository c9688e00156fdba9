"""Configuration of the ``xlstm`` package's block stacks: its YAML fields, read strictly.

The dataclasses have the fields of upstream's, with upstream's defaults; most of them matter to
training only. A field that changes the computation and is not lowered is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from xlstm_export.checkpoint.yaml_file import load_yaml
from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.families.block_stack.config_file import read_fields, stack_fields
from xlstm_export.model.layers.feed_forward import Activation

StoredType = Literal["bfloat16", "float16", "float32"]
BlockKind = Literal["mlstm", "slstm"]

_MOST_BLOCKS = 10_000
"""A number beyond it is a slip, and as many names would not fit in memory."""

_COMPUTED = frozenset(
    {"_block_idx", "_block_map", "_inner_embedding_dim", "_num_blocks", "_proj_up_dim"}
)
"""Upstream computes these itself; a configuration dumped from a live object contains them."""


@dataclass(frozen=True)
class FeedForwardConfig:
    """``slstm_block.feedforward``; ``bias`` is its own, not the stack's."""

    proj_factor: float = 1.3
    round_proj_up_dim_up: bool = True
    round_proj_up_to_multiple_of: int = 64
    act_fn: str = "gelu"
    embedding_dim: int = -1
    dropout: float = 0.0
    bias: bool = False
    ff_type: str = "ffn_gated"


@dataclass(frozen=True)
class MLSTMLayerConfig:
    """``mlstm_block.mlstm``; embedding_dim, bias, dropout, context_length come from the stack."""

    proj_factor: float = 2.0
    round_proj_up_dim_up: bool = True
    round_proj_up_to_multiple_of: int = 64
    conv1d_kernel_size: int = 4
    qkv_proj_blocksize: int = 4
    num_heads: int = 4
    embedding_dim: int = -1
    bias: bool = False
    dropout: float = 0.0
    context_length: int = -1


@dataclass(frozen=True)
class SLSTMLayerConfig:
    """``slstm_block.slstm``; hidden_size, embedding_dim and dropout come from the stack."""

    hidden_size: int = -1
    num_heads: int = 4
    num_states: int = 4
    backend: Literal["vanilla", "cuda"] = "cuda"
    function: str = "slstm"
    bias_init: str = "powerlaw_blockdependent"
    recurrent_weight_init: str = "zeros"
    num_gates: int = 4
    gradient_recurrent_cut: bool = False
    gradient_recurrent_clipval: float | None = None
    forward_clipval: float | None = None
    batch_size: int = 8
    input_shape: str = "BSGNH"
    internal_input_shape: str = "SBNGH"
    output_shape: str = "BNSH"
    constants: dict[str, Any] = field(default_factory=dict)
    dtype: StoredType = "bfloat16"
    dtype_b: StoredType | None = "float32"
    dtype_r: StoredType | None = None
    dtype_w: StoredType | None = None
    dtype_g: StoredType | None = None
    dtype_s: StoredType | None = None
    dtype_a: StoredType | None = None
    enable_automatic_mixed_precision: bool = True
    initial_val: float | list[float] = 0.0
    embedding_dim: int = -1
    conv1d_kernel_size: int = 4
    group_norm_weight: bool = True
    dropout: float = 0.0


@dataclass(frozen=True)
class MLSTMBlockConfig:
    """``mlstm_block``: has no feed-forward."""

    mlstm: MLSTMLayerConfig = field(default_factory=MLSTMLayerConfig)


@dataclass(frozen=True)
class SLSTMBlockConfig:
    """``slstm_block``: ``feedforward: null`` leaves the feed-forward out."""

    slstm: SLSTMLayerConfig = field(default_factory=SLSTMLayerConfig)
    feedforward: FeedForwardConfig | None = field(default_factory=FeedForwardConfig)


@dataclass(frozen=True)
class StackConfig:
    """xLSTMLMModelConfig; an xLSTMBlockStackConfig lacks the last four fields."""

    mlstm_block: MLSTMBlockConfig | None = None
    slstm_block: SLSTMBlockConfig | None = None
    context_length: int = -1
    num_blocks: int = 1
    embedding_dim: int = 128
    add_post_blocks_norm: bool = True
    bias: bool = False
    dropout: float = 0.0
    slstm_at: list[int] | Literal["all"] = field(default_factory=list)
    vocab_size: int = -1
    tie_weights: bool = False
    weight_decay_on_embedding: bool = False
    add_embedding_dropout: bool = False

    @property
    def block_kinds(self) -> tuple[BlockKind, ...]:
        """Kind of each block: sLSTM at ``slstm_at``, and everywhere without ``mlstm_block``."""
        slstm = {index % self.num_blocks for index in self.slstm_indices}
        return tuple("slstm" if index in slstm else "mlstm" for index in range(self.num_blocks))

    @property
    def slstm_indices(self) -> list[int]:
        """The blocks named by ``slstm_at``; negative ones count from the end."""
        if self.mlstm_block is None or self.slstm_at == "all":
            return list(range(self.num_blocks))
        return self.slstm_at


def read_config(path: Path) -> tuple[StackConfig, frozenset[str]]:
    """The configuration in ``path``, and the dotted names of the fields that stand there.

    Raises CheckpointError naming the field that is unknown, of the wrong type, or impossible;
    UnsupportedModelError naming the option that is not lowered.
    """
    return parse_config(load_yaml(path), str(path))


def parse_config(document: Mapping[str, Any], origin: str) -> tuple[StackConfig, frozenset[str]]:
    """``read_config`` of a document that was read; ``origin`` names it in messages."""
    fields = stack_fields(document, origin, _COMPUTED)
    config = read_fields(fields, StackConfig, origin)
    try:
        _check_structure(config)
        if "mlstm" in config.block_kinds and config.mlstm_block is not None:
            _check_mlstm(config.mlstm_block.mlstm)
        if "slstm" in config.block_kinds and config.slstm_block is not None:
            _check_slstm(config.slstm_block.slstm)
            _check_feedforward(config.slstm_block.feedforward)
    except (CheckpointError, UnsupportedModelError) as error:
        raise type(error)(f"{origin}: {error}") from None
    return config, frozenset(_names(fields))


def _names(fields: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for name, value in fields.items():
        yield f"{at}{name}"
        if isinstance(value, dict):
            yield from _names(value, f"{at}{name}.")


def _check_structure(config: StackConfig) -> None:
    """What upstream's own constructor demands of the stack."""
    if config.mlstm_block is None and config.slstm_block is None:
        raise CheckpointError("mlstm_block and slstm_block are both missing; one is required")
    for name in ("num_blocks", "embedding_dim"):
        if getattr(config, name) < 1:
            raise CheckpointError(f"{name} is {getattr(config, name)}, expected at least 1")
    if config.num_blocks > _MOST_BLOCKS:
        raise CheckpointError(f"num_blocks is {config.num_blocks}, expected at most {_MOST_BLOCKS}")
    blocks = config.num_blocks
    for index in config.slstm_indices:
        if not -blocks <= index < blocks:
            raise CheckpointError(f"slstm_at names block {index}, but num_blocks is {blocks}")
    if "slstm" in config.block_kinds and config.slstm_block is None:
        raise CheckpointError("slstm_at asks for sLSTM blocks, but slstm_block is missing")


def _check_mlstm(layer: MLSTMLayerConfig) -> None:
    for name in ("num_heads", "qkv_proj_blocksize"):
        if getattr(layer, name) < 1:
            raise CheckpointError(
                f"mlstm_block.mlstm.{name} is {getattr(layer, name)}, expected at least 1"
            )
    # 0: upstream cannot construct it; 1: upstream's forward cuts the whole sequence away
    kernel = layer.conv1d_kernel_size
    _supported("mlstm_block.mlstm.conv1d_kernel_size", kernel > 1, "2 and more", kernel)


def _check_slstm(layer: SLSTMLayerConfig) -> None:
    """Options of the sLSTM layer that change its function."""
    at = "slstm_block.slstm"
    kernel = layer.conv1d_kernel_size
    _supported(f"{at}.function", layer.function == "slstm", "slstm", layer.function)
    _supported(f"{at}.num_gates", layer.num_gates == 4, "4", layer.num_gates)
    _supported(f"{at}.conv1d_kernel_size", kernel != 1, "0, or 2 and more", kernel)
    _supported(f"{at}.input_shape", layer.input_shape == "BSGNH", "BSGNH", layer.input_shape)
    _supported(f"{at}.output_shape", layer.output_shape == "BNSH", "BNSH", layer.output_shape)
    if layer.backend == "cuda":  # the vanilla backend ignores these three
        inner = layer.internal_input_shape
        _supported(f"{at}.internal_input_shape", inner == "SBNGH", "SBNGH", inner)
        _supported(f"{at}.constants", not layer.constants, "none", layer.constants)
        # compiled in, this clips y in the forward pass too; |y| <= 1 as |c| <= n
        clip = layer.gradient_recurrent_clipval
        _supported(f"{at}.gradient_recurrent_clipval", clip is None or clip >= 1, ">= 1", clip)


def _check_feedforward(feedforward: FeedForwardConfig | None) -> None:
    if feedforward is None:
        return
    kind, act = feedforward.ff_type, feedforward.act_fn
    known = get_args(Activation)
    _supported("slstm_block.feedforward.ff_type", kind == "ffn_gated", "ffn_gated", kind)
    _supported("slstm_block.feedforward.act_fn", act in known, ", ".join(known), act)


def _supported(name: str, is_supported: bool, choices: str, value: object) -> None:
    if not is_supported:
        raise UnsupportedModelError(f"{name}: {value} is not supported (supported: {choices})")
