"""The ``xlstm`` package's block stacks: xLSTMLMModel and the bare xLSTMBlockStack.

A checkpoint is the module's state dict plus its configuration as YAML. Sizes come from the
tensors; the configuration gives head counts, block kinds and options, and must not contradict.
Maths: xLSTM paper (Beck et al. 2024), figures 10 and 11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from xlstm_export.errors import BackendUnavailableError, CheckpointError
from xlstm_export.families.block_stack_config import (
    MLSTMBlockConfig,
    SLSTMBlockConfig,
    read_config,
    stated_fields,
)
from xlstm_export.families.block_stack_layers import (
    Reading,
    feedforward,
    mlstm_mixer,
    plain_norm,
    slstm_mixer,
)
from xlstm_export.families.source import Checkpoint, Oracle, Source, read_text
from xlstm_export.families.storage import WEIGHT_SUFFIXES, read_weight_files
from xlstm_export.families.tensor_table import TensorTable
from xlstm_export.model.spec import Block, ModelSpec, Norm
from xlstm_export.model.weights import Array, Weight

_CONFIG_NAMES = ("config.yaml", "config.yml")
_WEIGHT_NAMES = ("model.safetensors", "model.pt", "model.pth")
_STACK_PREFIX = "xlstm_block_stack."
"""Where xLSTMLMModel keeps its stack; the keys of a bare stack start without it."""

_NORM = Norm("layer", eps=1e-5)
_CONFIG_FIELD = re.compile(r"""\b(mlstm_block|slstm_block)["']?\s*:""")


def detect(source: Source) -> bool:
    """Whether ``source`` has a block stack's configuration, or a weight file with its keys.

    Raises CheckpointError where the file that tells cannot be read.
    """
    config = _find_config(source)
    if config is not None:
        return bool(_CONFIG_FIELD.search(read_text(config, "YAML")))
    if source.path.suffix not in WEIGHT_SUFFIXES or not source.path.is_file():
        return False
    names = read_weight_files([source.path], source.prefix)
    return any(name.removeprefix(_STACK_PREFIX) == "blocks.0.xlstm_norm.weight" for name in names)


def read(source: Source) -> Checkpoint:
    """Structure and lazy tensors of ``source``.

    Raises CheckpointError for what is missing, damaged or contradictory, UnsupportedModelError
    for an option that is not lowered; both name the file and the key.
    """
    config_path, weight_path = _locate(source)
    config, stated = read_config(config_path), stated_fields(config_path)
    table = TensorTable(read_weight_files([weight_path], source.prefix), str(weight_path))
    is_lm = any(_STACK_PREFIX in name for name in table.names())
    root = _STACK_PREFIX if is_lm else ""
    model_size = table.take(f"{root}blocks.0.xlstm_norm.weight", None).shape[0]
    reading = Reading(config, config_path, stated, table, root, model_size)
    _check_stack(reading)
    blocks, weights = _blocks(reading)
    vocab_size, ends = _vocabulary(reading)
    weights.update(ends)
    norm_key, has_norm = f"{root}post_blocks_norm.weight", config.add_post_blocks_norm
    if reading.expect("add_post_blocks_norm", has_norm, norm_key, has_norm):
        weights["out_norm.weight"] = plain_norm(table.take(norm_key, model_size))
    table.finish()
    spec = ModelSpec(
        family="block_stack",
        model_size=model_size,
        blocks=blocks,
        out_norm=_NORM if has_norm else None,
        vocab_size=vocab_size,
        tied_head=is_lm and config.tie_weights,
    )
    return Checkpoint(spec, weights, (config_path, weight_path))


def oracle(source: Source, rounding: Mapping[str, str]) -> Oracle:
    """Upstream's own module in float64, with the tensors named in ``rounding`` rounded first.

    ``rounding`` maps checkpoint keys to "float32", "float16" or "bfloat16". Raises what ``read``
    raises, and BackendUnavailableError where torch or the xlstm package is not installed.
    """
    spec = read(source).spec
    try:
        from xlstm_export.families.block_stack_oracle import BlockStackOracle
    except ImportError as error:
        raise BackendUnavailableError(
            'the upstream module needs torch: pip install "xlstm-export[validate]"'
        ) from error
    config_path, weight_path = _locate(source)
    config, tensors = read_config(config_path), read_weight_files([weight_path], source.prefix)
    return BlockStackOracle(spec, config, tensors, rounding, str(weight_path))


def _locate(source: Source) -> tuple[Path, Path]:
    """Configuration and weight file of ``source``; raises CheckpointError when one is missing."""
    config = _find_config(source)
    if source.path.is_dir():
        found = [p for name in _WEIGHT_NAMES if (p := source.path / name).is_file()]
        if not found:
            raise CheckpointError(
                f"{source.path}: expected one of {', '.join(_WEIGHT_NAMES)}; weights of another "
                "name are given as the file itself"
            )
        weights = found[0]
    else:
        weights = source.path
    if config is None:
        raise CheckpointError(
            f"{source.path}: its configuration is missing; put {_CONFIG_NAMES[0]} beside the "
            "weights or name it with --config"
        )
    return config, weights


def _find_config(source: Source) -> Path | None:
    if source.config is not None:
        return source.config
    folder = source.path if source.path.is_dir() else source.path.parent
    return next((p for name in _CONFIG_NAMES if (p := folder / name).is_file()), None)


def _check_stack(reading: Reading) -> None:
    """The configuration's model size, block count and block kinds are those of the tensors."""
    config, root, names = reading.config, reading.root, reading.table.names()
    key = f"{root}blocks.0.xlstm_norm.weight"
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


def _vocabulary(reading: Reading) -> tuple[int | None, dict[str, Weight]]:
    """Vocabulary size, and embedding.weight and head.weight [vocab, D] of a language model."""
    config, table = reading.config, reading.table
    if not reading.root:
        reading.expect("vocab_size", config.vocab_size, "token_embedding.weight",
                       config.vocab_size > 0)  # fmt: skip
        return None, {}
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
    if config.tie_weights:
        return config.vocab_size, {"embedding.weight": _same_numbers(tables, reading)}
    return config.vocab_size, {"embedding.weight": tables[0], "head.weight": tables[1]}


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


def _blocks(reading: Reading) -> tuple[tuple[Block, ...], dict[str, Weight]]:
    blocks: list[Block] = []
    weights: dict[str, Weight] = {}
    for index, kind in enumerate(reading.config.block_kinds):
        block, named = (_slstm_block if kind == "slstm" else _mlstm_block)(
            reading, f"{reading.root}blocks.{index}"
        )
        norm = reading.table.take(
            f"{reading.root}blocks.{index}.xlstm_norm.weight", reading.model_size
        )
        named["mixer_norm.weight"] = plain_norm(norm)
        blocks.append(block)
        weights.update({f"blocks.{index}.{name}": weight for name, weight in named.items()})
    return tuple(blocks), weights


def _mlstm_block(reading: Reading, at: str) -> tuple[Block, dict[str, Weight]]:
    config = reading.config.mlstm_block or MLSTMBlockConfig()
    mixer, weights = mlstm_mixer(reading, config.mlstm, f"{at}.xlstm")
    return Block(_NORM, mixer), _named("mixer", weights)


def _slstm_block(reading: Reading, at: str) -> tuple[Block, dict[str, Weight]]:
    config = reading.config.slstm_block or SLSTMBlockConfig()
    mixer, weights = slstm_mixer(reading, config.slstm, f"{at}.xlstm")
    weights = _named("mixer", weights)
    key, present = f"{at}.ffn.proj_down.weight", config.feedforward is not None
    reading.expect("slstm_block.feedforward", "set" if present else "null", key, present)
    if config.feedforward is None:
        return Block(_NORM, mixer), weights
    ffn, tensors = feedforward(reading, config.feedforward, f"{at}.ffn")
    weights |= _named("ffn", tensors)
    norm = reading.table.take(f"{at}.ffn_norm.weight", reading.model_size)
    weights["ffn_norm.weight"] = plain_norm(norm)
    return Block(_NORM, mixer, _NORM, ffn), weights


def _named(prefix: str, weights: dict[str, Weight]) -> dict[str, Weight]:
    return {f"{prefix}.{name}": weight for name, weight in weights.items()}
