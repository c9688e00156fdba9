"""The ``xlstm`` package's block stacks: xLSTMLMModel and the bare xLSTMBlockStack.

A checkpoint is the module's state dict plus its configuration as YAML. Sizes come from the
tensors; the configuration gives head counts, block kinds and options, and must not contradict.
Maths: xLSTM paper (Beck et al. 2024), figures 10 and 11.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.checkpoint.tensor_table import LayerTensors, TensorTable, placed
from xlstm_export.checkpoint.weight_files import read_weight_files
from xlstm_export.families.block_stack.config import MLSTMBlockConfig, SLSTMBlockConfig
from xlstm_export.families.block_stack.find_config import FIRST_NORM, STACK_PREFIX, configuration
from xlstm_export.families.block_stack.layers import (
    Reading,
    read_feed_forward,
    read_mlstm,
    read_slstm,
)
from xlstm_export.families.block_stack.norms import notes_on_norms
from xlstm_export.model.layer import Layer
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.model.spec import ModelSpec, embeddings, hidden_states, logits, token_ids
from xlstm_export.model.weights import Array, Weight

_NORM_EPS = 1e-5


def read(source: Source) -> Checkpoint:
    """Structure and lazy tensors of ``source``.

    Raises CheckpointError for what is missing, damaged or contradictory, UnsupportedModelError
    for an option that is not lowered; both name the file and the key.
    """
    files = find_weight_files(source.path)
    stored = read_weight_files(files, source.prefix)
    found = configuration(source, stored)
    config = found.config
    table = TensorTable(stored.tensors, str(files[0] if len(files) == 1 else source.path))
    is_lm = any(STACK_PREFIX in name for name in table.names())
    root = STACK_PREFIX if is_lm else ""
    model_size = table.size("model size", *_model_sizes(root))
    reading = Reading(config, found.origin, found.stated, table, root, model_size)
    _check_stack(reading)
    layers, weights = _blocks(reading)
    norm_key, has_norm = f"{root}post_blocks_norm.weight", config.add_post_blocks_norm
    if reading.expect("add_post_blocks_norm", has_norm, norm_key, has_norm):
        norm = Norm("layer", _NORM_EPS, model_size)
        layers.append(("out_norm", norm))
        weights |= placed("out_norm", _norm_weights(reading, norm, norm_key))
    ends = (embeddings(model_size), hidden_states(model_size))
    if is_lm:
        embedding, head = _add_vocabulary(reading, weights)
        layers = [("embedding", embedding), *layers, ("head", head)]
        ends = (token_ids(), logits(head.vocab_size))
    elif config.vocab_size > 0:
        raise reading.contradiction(
            f"{reading.says('vocab_size', config.vocab_size)}, but tensor token_embedding.weight "
            "is missing"
        )
    table.finish()
    spec = ModelSpec("block_stack", ends[:1], tuple(layers), ends[1:])
    notes = (*stored.notes, *found.notes, *notes_on_norms(stored.tensors))
    files = (*found.files, *files)
    return Checkpoint(spec, weights, files, stored.tensors, config, stored.left_out, notes)


def _check_stack(reading: Reading) -> None:
    """The configuration's model size, block count and block kinds are those of the tensors."""
    config, root, names = reading.config, reading.root, reading.table.names()
    key = f"{root}{FIRST_NORM}"
    reading.agree("embedding_dim", config.embedding_dim, key, reading.model_size)
    pattern = re.compile(rf"{re.escape(root)}blocks\.(\d+)\.")
    count = 1 + max(int(match[1]) for name in names if (match := pattern.match(name)))
    if config.num_blocks != count:
        raise reading.contradiction(
            f"{reading.says('num_blocks', config.num_blocks)}, "
            f"but the tensors {root}blocks.* are {count} blocks"
        )
    for index, kind in enumerate(config.block_kinds):
        cell = {"mlstm": "mlstm_cell.igate.weight", "slstm": "slstm_cell._recurrent_kernel_"}[kind]
        if (key := f"{root}blocks.{index}.xlstm.{cell}") not in reading.table:
            raise reading.contradiction(
                f"block {index} is an {kind} block (slstm_at), but tensor {key} is missing"
            )


def _model_sizes(root: str) -> list[tuple[str, int]]:
    """Tensors that show the model size, so that a wrong one is not believed."""
    first = f"{root}blocks.0.xlstm"
    return [
        (f"{root}{FIRST_NORM}", 0), (f"{root}blocks.0.ffn_norm.weight", 0),
        (f"{first}.proj_up.weight", 1), (f"{first}.proj_down.weight", 0),
        (f"{first}.group_norm.weight", 0),
        (f"{root}post_blocks_norm.weight", 0), ("token_embedding.weight", 1), ("lm_head.weight", 1),
    ]  # fmt: skip


def _add_vocabulary(
    reading: Reading, weights: dict[str, Weight]
) -> tuple[TokenEmbedding, LogitHead]:
    """Both ends of a language model; their tables [vocab, D] go into ``weights``."""
    config, table = reading.config, reading.table
    keys = ["token_embedding.weight", "lm_head.weight"]
    if config.tie_weights:  # savers that drop duplicates keep either name
        keys = [key for key in keys if key in table] or keys[:1]
    tables = [table.take(key, None, reading.model_size) for key in keys]
    for key, weight in zip(keys, tables, strict=True):
        if config.vocab_size < 1:
            raise reading.contradiction(
                f"vocab_size is missing; tensor {key} says {weight.shape[0]}"
            )
        reading.agree("vocab_size", config.vocab_size, key, weight.shape[0])
    size = reading.model_size
    embedding = TokenEmbedding(config.vocab_size, size)
    if config.tie_weights:
        weights["embedding.weight"] = _same_numbers(tables, reading)
        return embedding, LogitHead(config.vocab_size, size, tied_to="embedding")
    weights |= {"embedding.weight": tables[0], "head.weight": tables[1]}
    return embedding, LogitHead(config.vocab_size, size)


def _same_numbers(tied: list[Weight], reading: Reading) -> Weight:
    """The first of ``tied``; when it is read it is compared with the others."""

    def load() -> Array:
        numbers = tied[0].load()
        for other in tied[1:]:
            if not np.array_equal(numbers, other.load()):
                raise reading.contradiction(
                    f"tie_weights is on, but tensors {tied[0].sources[0]} and "
                    f"{other.sources[0]} differ"
                )
        return numbers

    return replace(tied[0], load=load)


def _norm_weights(reading: Reading, norm: Norm, key: str) -> dict[str, Weight]:
    tensors = LayerTensors(reading.table, norm)
    tensors.take_norm("weight", key)
    return tensors.weights


def _blocks(reading: Reading) -> tuple[list[tuple[str, Layer]], dict[str, Weight]]:
    layers: list[tuple[str, Layer]] = []
    weights: dict[str, Weight] = {}
    norm = Norm("layer", _NORM_EPS, reading.model_size)

    def add(index: int, name: str, layer: Layer, own: dict[str, Weight], norm_key: str) -> None:
        norm_name = f"{'ffn' if name == 'ffn' else 'mixer'}_norm"
        layers.append((f"layers.{index}.{name}", Residual(norm, layer, norm_name)))
        weights.update(placed(f"layers.{index}.{name}", own))
        weights.update(
            placed(f"layers.{index}.{norm_name}", _norm_weights(reading, norm, norm_key))
        )

    for index, kind in enumerate(reading.config.block_kinds):
        at = f"{reading.root}blocks.{index}"
        norm_key = f"{at}.xlstm_norm.weight"
        if kind == "mlstm":
            block = reading.config.mlstm_block or MLSTMBlockConfig()
            add(index, kind, *read_mlstm(reading, block.mlstm, f"{at}.xlstm"), norm_key)
            continue
        config = reading.config.slstm_block or SLSTMBlockConfig()
        add(index, kind, *read_slstm(reading, config.slstm, f"{at}.xlstm"), norm_key)
        key, present = f"{at}.ffn.proj_down.weight", config.feedforward is not None
        reading.expect("slstm_block.feedforward", "set" if present else "null", key, present)
        if config.feedforward is not None:
            ffn = read_feed_forward(reading, config.feedforward, f"{at}.ffn")
            add(index, "ffn", *ffn, f"{at}.ffn_norm.weight")
    return layers, weights
