"""A model in a few facts, for people."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from xlstm_export.model.spec import (
    Block,
    MLSTMMixer,
    ModelSpec,
    SLSTMMixer,
    UpProjectedMLSTMMixer,
)
from xlstm_export.model.state import state_specs
from xlstm_export.model.weights import Weights


def summarise(spec: ModelSpec, weights: Weights) -> dict[str, Any]:
    """Family, sizes, parameters, stored types, state size, and one line per run of blocks."""
    state_bytes = sum(4 * math.prod(int(d) for d in s.shape[1:]) for s in state_specs(spec))
    stored = Counter(weight.dtype for weight in weights.values())
    return {
        "family": spec.family,
        "model size": spec.model_size,
        "blocks": len(spec.blocks),
        "vocabulary": spec.vocab_size or "none: a bare stack, takes embeddings",
        "head": "tied to the embedding" if spec.tied_head else "own weights",
        "parameters": f"{sum(math.prod(w.shape) for w in weights.values()):,}",
        "stored as": ", ".join(f"{name} ({count} tensors)" for name, count in stored.items()),
        "state": f"{state_bytes / 1e3:,.1f} kB a sequence, whatever its length",
        "layers": _layers(spec),
    }


def _layers(spec: ModelSpec) -> list[str]:
    lines: list[str] = []
    start = 0
    for index, block in enumerate(spec.blocks):
        is_last = index + 1 == len(spec.blocks)
        if is_last or spec.blocks[index + 1] != block:
            span = f"{start}" if start == index else f"{start}-{index}"
            lines.append(f"{span:>7}  {_describe(block)}")
            start = index + 1
    return lines


def _describe(block: Block) -> str:
    mixer = block.mixer
    ffn = f", {block.ffn.activation} feed-forward {block.ffn.hidden_size}" if block.ffn else ""
    if isinstance(mixer, SLSTMMixer):
        return f"sLSTM {mixer.heads} heads of {mixer.head_size}{_conv(mixer.conv_width)}{ffn}"
    heads = f"{mixer.cell.heads} heads of {mixer.cell.qk_size}x{mixer.cell.v_size}"
    if isinstance(mixer, UpProjectedMLSTMMixer):
        return f"mLSTM {heads}, inner size {mixer.inner_size}{_conv(mixer.conv_width)}{ffn}"
    assert isinstance(mixer, MLSTMMixer)
    cap = f", gates capped at {mixer.cell.gate_soft_cap:g}" if mixer.cell.gate_soft_cap else ""
    return f"mLSTM {heads}{cap}{ffn}"


def _conv(width: int) -> str:
    return f", convolution {width}" if width else ""
