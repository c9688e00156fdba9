"""The mLSTM language model of xLSTM-7B, as the packages xlstm and transformers both store it.

Equations: xLSTM-7B (Beck et al. 2025), fig. 2. Tensor names are the same but for the embedding;
what differs is passed in by ``xlstm_large`` and ``hf``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xlstm_export.checkpoint.tensor_table import LayerTensors, TensorTable, placed
from xlstm_export.errors import CheckpointError
from xlstm_export.families.large.fields import LargeFields, refuse_contradiction
from xlstm_export.model.layer import Layer
from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.mlstm import MLSTM, MLSTMCell
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.model.spec import ModelSpec, hidden_states, logits, token_ids
from xlstm_export.model.weights import Weight


@dataclass(frozen=True)
class LargeLayout:
    """Where the two families differ; ``prefix`` is what the keys of the backbone start with."""

    family: str
    embedding: str
    has_out_norm: bool
    out_norm_bias: bool
    tied_without_head: bool
    """The embedding serves as head where the checkpoint stores no head."""
    prefix: str = "backbone."
    has_head: bool = True


@dataclass(frozen=True)
class _Reading:
    """One checkpoint while it is read."""

    table: TensorTable
    fields: LargeFields
    model_size: int
    norm: Norm


def read_model(
    table: TensorTable, fields: LargeFields, layout: LargeLayout, origin: str
) -> tuple[ModelSpec, dict[str, Weight]]:
    """Every tensor of the model under its canonical name, and the structure they imply.

    ``origin`` is where ``fields`` stand, for messages.
    """
    vocab_size = table.size("vocabulary", (layout.embedding, 0))
    first = f"{layout.prefix}blocks.0"
    model_size = table.size(
        "model size", (layout.embedding, 1), ("lm_head.weight", 1),
        (f"{first}.norm_mlstm.weight", 0), (f"{first}.norm_ffn.weight", 0),
        (f"{first}.mlstm_layer.out_proj.weight", 0),
    )  # fmt: skip
    block_count = _count_blocks(table, layout.prefix)
    refuse_contradiction(origin, "vocab_size", fields.vocab_size, vocab_size)
    refuse_contradiction(origin, "embedding_dim", fields.embedding_dim, model_size)
    refuse_contradiction(origin, "num_blocks", fields.num_blocks, block_count)
    reading = _Reading(table, fields, model_size, Norm("rms", fields.norm_eps, model_size))
    layers: list[tuple[str, Layer]] = [("embedding", TokenEmbedding(vocab_size, model_size))]
    weights = {"embedding.weight": table.take(layout.embedding, vocab_size, model_size)}
    for index in range(block_count):
        prefix = f"{layout.prefix}blocks.{index}"
        heads = _head_count(table, prefix)
        refuse_contradiction(origin, "num_heads", fields.num_heads, heads)
        for read in (_read_mixer(reading, prefix, heads), _read_ffn(reading, prefix)):
            (name, layer), own = read
            layers.append((f"layers.{index}.{name}", layer))
            weights |= placed(f"layers.{index}", own)
    if layout.has_out_norm:
        layers.append(("out_norm", reading.norm))
        weights |= placed(
            "out_norm", _norm(reading, f"{layout.prefix}out_norm", layout.out_norm_bias)
        )
    output = hidden_states(model_size)
    if layout.has_head:
        head = _read_head(reading, layout, vocab_size)
        layers.append(("head", head[0]))
        weights |= placed("head", head[1])
        output = logits(vocab_size)
    return ModelSpec(layout.family, (token_ids(),), tuple(layers), (output,)), weights


def _read_head(
    reading: _Reading, layout: LargeLayout, vocab_size: int
) -> tuple[LogitHead, dict[str, Weight]]:
    tied = layout.tied_without_head and "lm_head.weight" not in reading.table
    cap = reading.fields.output_logit_soft_cap or 0.0
    head = LogitHead(vocab_size, reading.model_size, cap, "embedding" if tied else "")
    tensors = LayerTensors(reading.table, head)
    if not tied:
        tensors.take("weight", "lm_head.weight")
    return head, tensors.weights


def _count_blocks(table: TensorTable, prefix: str) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}blocks\.(\d+)\.")
    numbers = [int(m[1]) for m in map(pattern.match, table.names()) if m]
    if not numbers:
        table.shape(f"{prefix}blocks.0.norm_mlstm.weight")  # raises, naming it
    return max(numbers) + 1


def _head_count(table: TensorTable, prefix: str) -> int:
    """Heads of a block, by its gate biases (there whatever ``use_bias`` says)."""
    fused = f"{prefix}.mlstm_layer.ifgate_preact.bias"
    if fused in table:
        return table.size("number of heads", (fused, 0)) // 2
    gates = [(f"{prefix}.mlstm_layer.{gate}_preact.bias", 0) for gate in ("igate", "fgate")]
    return table.size("number of heads", *gates)


def _norm(reading: _Reading, key: str, bias: bool) -> dict[str, Weight]:
    tensors = LayerTensors(reading.table, reading.norm)
    for name in ("weight", "bias") if bias else ("weight",):
        tensors.take(name, f"{key}.{name}")
    return tensors.weights


def _read_mixer(
    reading: _Reading, prefix: str, heads: int
) -> tuple[tuple[str, Residual], dict[str, Weight]]:
    """Single matrices, or fused ones with rows q, k, v, o and i, f."""
    table, fields, at = reading.table, reading.fields, f"{prefix}.mlstm_layer"
    fused = f"{at}.qkv_opreact.weight"
    v_rows = table.size(
        "value size", (f"{at}.out_proj.weight", 1), (f"{at}.multihead_norm.weight", 0),
        (f"{at}.v.weight", 0), (f"{at}.ogate_preact.weight", 0),
    )  # fmt: skip
    if fused in table:
        q_rows = table.size("number of rows", (fused, 0)) // 2 - v_rows
    else:
        q_rows = table.size("query size", (f"{at}.q.weight", 0), (f"{at}.k.weight", 0))
    if heads < 1 or min(q_rows, v_rows) < 1 or q_rows % heads or v_rows % heads:
        raise CheckpointError(
            f"{at}: q has {q_rows} rows and v {v_rows}: they do not split into {heads} heads"
        )
    cell = MLSTMCell(
        heads=heads,
        qk_size=q_rows // heads,
        v_size=v_rows // heads,
        gate_soft_cap=fields.gate_soft_cap or 0.0,
        eps=fields.eps,
        scale_side=0,
    )
    layer = MLSTM(reading.model_size, cell, head_norm_eps=fields.norm_eps)
    tensors = LayerTensors(table, layer)
    leaves = ("weight", "bias") if fields.use_bias else ("weight",)
    big = {"q": "q", "k": "k", "v": "v", "output_gate": "ogate_preact"}
    gates = {"input_gate": "igate_preact", "forget_gate": "fgate_preact"}
    for leaf in leaves:
        _take(tensors, big, at, "qkv_opreact" if fused in table else "", leaf)
        tensors.take(f"head_norm.{leaf}", f"{at}.multihead_norm.{leaf}")
        tensors.take(f"out.{leaf}", f"{at}.out_proj.{leaf}")
    for leaf in ("weight", "bias"):
        _take(tensors, gates, at, "ifgate_preact" if fused in table else "", leaf)
    norm = _norm(reading, f"{prefix}.norm_mlstm", fields.use_bias)
    weights = placed("mlstm", tensors.weights) | placed("mixer_norm", norm)
    return ("mlstm", Residual(reading.norm, layer, "mixer_norm")), weights


def _take(tensors: LayerTensors, names: dict[str, str], at: str, fused: str, leaf: str) -> None:
    """``names`` (ours: theirs), each a layer of its own or rows of the layer ``fused``."""
    if fused:
        tensors.split([f"{name}.{leaf}" for name in names], f"{at}.{fused}.{leaf}")
        return
    for ours, theirs in names.items():
        tensors.take(f"{ours}.{leaf}", f"{at}.{theirs}.{leaf}")


def _read_ffn(reading: _Reading, prefix: str) -> tuple[tuple[str, Residual], dict[str, Weight]]:
    """down(silu(gate(x)) * up(x)); a fused matrix has rows gate, up."""
    table, at, bias = reading.table, f"{prefix}.ffn", reading.fields.use_bias
    fused = f"{at}.proj_up_gate_z.weight" in table
    hidden = table.size(
        "feed-forward size", (f"{at}.proj_down.weight", 1), (f"{at}.proj_up_gate.weight", 0),
        (f"{at}.proj_up.weight", 0), (f"{at}.proj_up_gate_z.weight", 0, 2),
    )  # fmt: skip
    layer = FeedForward(reading.model_size, hidden, "swish")
    tensors = LayerTensors(table, layer)
    names = {"gate": "proj_up_gate", "up": "proj_up"}
    for leaf in ("weight", "bias") if bias else ("weight",):
        _take(tensors, names, at, "proj_up_gate_z" if fused else "", leaf)
        tensors.take(f"down.{leaf}", f"{at}.proj_down.{leaf}")
    norm = _norm(reading, f"{prefix}.norm_ffn", bias)
    weights = placed("ffn", tensors.weights) | placed("ffn_norm", norm)
    return ("ffn", Residual(reading.norm, layer, "ffn_norm")), weights
