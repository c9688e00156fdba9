"""transformers' own modules as reference. Importing this file imports it and torch."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from transformers.models.xlstm import modeling_xlstm as upstream
from transformers.models.xlstm.configuration_xlstm import xLSTMConfig
from transformers.models.xlstm.modeling_xlstm import soft_cap  # type: ignore[attr-defined]

from xlstm_export.checkpoint.source import Checkpoint
from xlstm_export.families.large.oracle import (
    NATIVE,
    Forward,
    LargeOracle,
    LayerState,
    first_cell,
    load_in_float64,
    logit_cap,
    norm_eps,
    oracle_name,
    part_forward,
    size_arguments,
    weight_mode,
)
from xlstm_export.families.tensors import float64_tensors
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.storage import Storage

_EMBEDDING = "backbone.embeddings.weight"


def build(checkpoint: Checkpoint, storage: Storage, part: ModelSpec | None = None) -> LargeOracle:
    """The model of ``checkpoint``, or ``part`` of it, its numbers as ``storage`` leaves them."""
    spec = checkpoint.spec
    config = _config(spec, checkpoint.fields.use_bias, weight_mode(checkpoint.tensors))
    is_bare = not spec.layers_of(LogitHead)
    kind = upstream.xLSTMModel if is_bare else upstream.xLSTMForCausalLM
    with torch.device("meta"):
        model: Any = kind(config)
    backbone = model if is_bare else model.backbone
    values = float64_tensors(checkpoint, storage, part)
    if any(head.tied_to for head in (part or spec).layers_of(LogitHead)):
        values["lm_head.weight"] = values[_EMBEDDING]  # transformers would leave it at random
    load_in_float64(model, values, part is not None)
    block: Any
    for block in backbone.blocks:
        # xLSTMConfig refuses None; its object has no other way to say that a cap is off
        vars(block.mlstm_layer.config)["gate_soft_cap"] = first_cell(spec).gate_soft_cap or None

    def head(x: Tensor) -> Tensor:
        # the model's own forward does the same, but casts to float32 before the cap
        logits: Tensor = soft_cap(model.lm_head(x), logit_cap(spec))
        return logits

    def forward(tokens: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        cache = upstream.xLSTMCache(config, tokens.shape[0], dtype=torch.float64)
        # its own tensors round K and V up to multiples of 64, other than the layers
        cache.rnn_state = dict(enumerate(state))
        output = backbone(tokens, cache_params=cache, use_cache=True).last_hidden_state
        if not is_bare:
            output = head(output)
        return output, [cache.rnn_state[layer] for layer in range(len(state))]

    run: Forward = forward
    if part is not None:
        run = part_forward(part, backbone.embeddings, backbone.blocks, backbone.out_norm, head)
    own = f"via xlstm {version('xlstm')}" if upstream.external_xlstm else "own kernels"
    return LargeOracle(oracle_name("transformers", kind.__name__, own), part or spec, model, run)


def _config(spec: ModelSpec, use_bias: bool, mode: str) -> xLSTMConfig:
    sizes = size_arguments(spec)
    return xLSTMConfig(
        **sizes,
        **NATIVE,
        hidden_size=sizes["embedding_dim"],
        num_hidden_layers=sizes["num_blocks"],
        use_bias=use_bias,
        norm_eps=norm_eps(spec),
        eps=first_cell(spec).eps,
        weight_mode=mode,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
