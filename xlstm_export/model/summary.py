"""A model in a few facts: for programs, and for people."""

from __future__ import annotations

import dataclasses
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
    """Sizes, parameters, tensors by stored type, bytes of one sequence's state, and every block."""
    return {
        "family": spec.family,
        "model_size": spec.model_size,
        "vocab_size": spec.vocab_size,
        "tied_head": spec.tied_head,
        "parameters": sum(math.prod(weight.shape) for weight in weights.values()),
        "tensors": dict(Counter(weight.dtype for weight in weights.values())),
        "state_bytes": sum(4 * math.prod(int(d) for d in s.shape[1:]) for s in state_specs(spec)),
        "blocks": [_block(block) for block in spec.blocks],
    }


def describe(spec: ModelSpec, weights: Weights) -> dict[str, str | list[str]]:
    """The same in words, equal blocks in one line."""
    facts = summarise(spec, weights)
    stored = (f"{name} ({count} tensors)" for name, count in facts["tensors"].items())
    return {
        "family": spec.family,
        "model size": str(spec.model_size),
        "blocks": str(len(spec.blocks)),
        "vocabulary": str(spec.vocab_size or "none: a bare stack, takes embeddings"),
        "head": "tied to the embedding" if spec.tied_head else "own weights",
        "parameters": f"{facts['parameters']:,}",
        "stored as": ", ".join(stored),
        "state": f"{facts['state_bytes'] / 1e3:,.1f} kB a sequence, whatever its length",
        "layers": _layers(spec),
    }


def _block(block: Block) -> dict[str, Any]:
    kind = "slstm" if isinstance(block.mixer, SLSTMMixer) else "mlstm"
    ffn = dataclasses.asdict(block.ffn) if block.ffn else None
    return {"kind": kind, "mixer": dataclasses.asdict(block.mixer), "feed_forward": ffn}


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
