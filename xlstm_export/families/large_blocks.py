"""The mLSTM language model of xLSTM-7B, as the packages xlstm and transformers both store it.

Equations: xLSTM-7B (Beck et al. 2025), fig. 2. Tensor names are the same but for the embedding;
what differs is passed in by ``xlstm_large`` and ``hf``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xlstm_export.errors import CheckpointError
from xlstm_export.families.large_fields import LargeFields, refuse_contradiction
from xlstm_export.families.tensor_table import TensorTable
from xlstm_export.model.spec import Block, FeedForward, MLSTMCell, MLSTMMixer, ModelSpec, Norm
from xlstm_export.model.weights import Array, Weight

_BLOCK_NAME = re.compile(r"backbone\.blocks\.(\d+)\.")


@dataclass(frozen=True)
class LargeLayout:
    """Where the two families differ."""

    family: str
    embedding: str
    has_out_norm: bool
    out_norm_bias: bool
    tied_without_head: bool
    """The embedding serves as head where the checkpoint stores no head."""


def read_model(
    table: TensorTable, fields: LargeFields, layout: LargeLayout, config: Path
) -> tuple[ModelSpec, dict[str, Weight]]:
    """Every tensor of the model under its canonical name, and the structure they imply.

    ``config`` is the file ``fields`` come from, for messages.
    """
    embedding = table.take(layout.embedding, None, None)
    vocab_size, model_size = embedding.shape
    block_count = _count_blocks(table)
    refuse_contradiction(config, "vocab_size", fields.vocab_size, vocab_size)
    refuse_contradiction(config, "embedding_dim", fields.embedding_dim, model_size)
    refuse_contradiction(config, "num_blocks", fields.num_blocks, block_count)
    weights = {"embedding.weight": embedding}
    blocks = []
    for index in range(block_count):
        prefix = f"backbone.blocks.{index}"
        heads = _head_count(table, prefix)
        refuse_contradiction(config, "num_heads", fields.num_heads, heads)
        block, own = _read_block(table, prefix, model_size, heads, fields)
        blocks.append(block)
        weights |= {f"blocks.{index}.{name}": weight for name, weight in own.items()}
    if layout.has_out_norm:
        bias = layout.out_norm_bias
        weights |= _affine(table, "backbone.out_norm", "out_norm", (model_size,), bias)
    tied = layout.tied_without_head and "lm_head.weight" not in table
    if not tied:
        weights["head.weight"] = table.take("lm_head.weight", vocab_size, model_size)
    spec = ModelSpec(
        family=layout.family,
        model_size=model_size,
        blocks=tuple(blocks),
        out_norm=Norm("rms", fields.norm_eps) if layout.has_out_norm else None,
        vocab_size=vocab_size,
        tied_head=tied,
        logit_soft_cap=fields.output_logit_soft_cap or 0.0,
    )
    return spec, weights


def _count_blocks(table: TensorTable) -> int:
    numbers = [int(m[1]) for m in map(_BLOCK_NAME.match, table.names()) if m]
    if not numbers:
        table.shape("backbone.blocks.0.norm_mlstm.weight")  # raises, naming it
    return max(numbers) + 1


def _head_count(table: TensorTable, prefix: str) -> int:
    """Heads of a block, by its gate biases (there whatever ``use_bias`` says)."""
    fused = f"{prefix}.mlstm_layer.ifgate_preact.bias"
    if fused in table:
        return table.take(fused, None).shape[0] // 2
    return table.take(f"{prefix}.mlstm_layer.igate_preact.bias", None).shape[0]


def _read_block(
    table: TensorTable, prefix: str, model_size: int, heads: int, fields: LargeFields
) -> tuple[Block, dict[str, Weight]]:
    mixer, weights = _read_mixer(table, f"{prefix}.mlstm_layer", model_size, heads, fields)
    ffn, ffn_weights = _read_ffn(table, f"{prefix}.ffn", model_size, fields.use_bias)
    weights |= ffn_weights
    for theirs, ours in (("norm_mlstm", "mixer_norm"), ("norm_ffn", "ffn_norm")):
        weights |= _affine(table, f"{prefix}.{theirs}", ours, (model_size,), fields.use_bias)
    norm = Norm("rms", fields.norm_eps)
    return Block(mixer_norm=norm, mixer=mixer, ffn_norm=norm, ffn=ffn), weights


def _read_mixer(
    table: TensorTable, prefix: str, model_size: int, heads: int, fields: LargeFields
) -> tuple[MLSTMMixer, dict[str, Weight]]:
    """Single matrices, or fused ones with rows q, k, v, o and i, f."""
    v_rows = table.take(f"{prefix}.out_proj.weight", model_size, None).shape[1]
    fused = f"{prefix}.qkv_opreact.weight"
    if is_fused := fused in table:
        q_rows = table.take(fused, None, model_size).shape[0] // 2 - v_rows
    else:
        q_rows = table.take(f"{prefix}.q.weight", None, model_size).shape[0]
    if heads < 1 or min(q_rows, v_rows) < 1 or q_rows % heads or v_rows % heads:
        raise CheckpointError(
            f"{prefix}: q has {q_rows} rows and v {v_rows}: they do not split into {heads} heads"
        )
    big = {"mixer.q": q_rows, "mixer.k": q_rows, "mixer.v": v_rows, "mixer.output_gate": v_rows}
    gates = {"mixer.input_gate": heads, "mixer.forget_gate": heads}
    bias = fields.use_bias
    if is_fused:
        weights = _split(table, f"{prefix}.qkv_opreact", big, model_size, bias)
        weights |= _split(table, f"{prefix}.ifgate_preact", gates, model_size, True)
    else:
        names = ("q", "k", "v", "ogate_preact")
        weights = _single(table, prefix, names, big, model_size, bias)
        gate_names = ("igate_preact", "fgate_preact")
        weights |= _single(table, prefix, gate_names, gates, model_size, True)
    weights |= _affine(table, f"{prefix}.multihead_norm", "mixer.head_norm", (v_rows,), bias)
    weights |= _affine(table, f"{prefix}.out_proj", "mixer.out", (model_size, v_rows), bias)
    cell = MLSTMCell(
        heads=heads,
        qk_size=q_rows // heads,
        v_size=v_rows // heads,
        gate_soft_cap=fields.gate_soft_cap or 0.0,
        eps=fields.eps,
        scale_side=0,
    )
    return MLSTMMixer(cell, head_norm_eps=fields.norm_eps), weights


def _read_ffn(
    table: TensorTable, prefix: str, model_size: int, bias: bool
) -> tuple[FeedForward, dict[str, Weight]]:
    """down(silu(gate(x)) * up(x)); a fused matrix has rows gate, up."""
    hidden = table.take(f"{prefix}.proj_down.weight", model_size, None).shape[1]
    targets = {"ffn.gate": hidden, "ffn.up": hidden}
    if f"{prefix}.proj_up_gate_z.weight" in table:
        weights = _split(table, f"{prefix}.proj_up_gate_z", targets, model_size, bias)
    else:
        names = ("proj_up_gate", "proj_up")
        weights = _single(table, prefix, names, targets, model_size, bias)
    weights |= _affine(table, f"{prefix}.proj_down", "ffn.down", (model_size, hidden), bias)
    return FeedForward(hidden, "swish"), weights


def _affine(
    table: TensorTable, source: str, target: str, shape: tuple[int, ...], bias: bool
) -> dict[str, Weight]:
    """``target.weight`` of ``shape``, and ``target.bias`` of its first dimension."""
    weights = {f"{target}.weight": table.take(f"{source}.weight", *shape)}
    if bias:
        weights[f"{target}.bias"] = table.take(f"{source}.bias", shape[0])
    return weights


def _single(
    table: TensorTable, prefix: str, names: tuple[str, ...], targets: Mapping[str, int],
    columns: int, bias: bool,
) -> dict[str, Weight]:  # fmt: skip
    """Each of ``targets`` (name: rows) from the layer of that place in ``names``."""
    weights: dict[str, Weight] = {}
    for name, (target, rows) in zip(names, targets.items(), strict=True):
        weights |= _affine(table, f"{prefix}.{name}", target, (rows, columns), bias)
    return weights


def _split(
    table: TensorTable, source: str, targets: Mapping[str, int], columns: int, bias: bool
) -> dict[str, Weight]:
    """``targets`` (name: rows) as consecutive rows of one fused layer."""
    fused = _affine(table, source, "fused", (sum(targets.values()), columns), bias)
    weights, start = {}, 0
    for target, rows in targets.items():
        for name, weight in fused.items():
            part = weight.with_view(partial(_rows, start=start, stop=start + rows))
            weights[name.replace("fused", target)] = part
        start += rows
    return weights


def _rows(array: Array, start: int, stop: int) -> Array:
    return array[start:stop]
