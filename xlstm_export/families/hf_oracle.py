"""transformers' xLSTMForCausalLM as reference. Importing this file imports it and torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from transformers.models.xlstm import modeling_xlstm as upstream
from transformers.models.xlstm.configuration_xlstm import xLSTMConfig
from transformers.models.xlstm.modeling_xlstm import soft_cap  # type: ignore[attr-defined]

from xlstm_export.families.large_oracle import (
    NATIVE,
    LargeOracle,
    LayerState,
    first_cell,
    load_in_float64,
    oracle_name,
    size_arguments,
    weight_mode,
)
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.weights import Weights

_EMBEDDING = "backbone.embeddings.weight"


def build(
    spec: ModelSpec, use_bias: bool, tensors: Weights, rounding: Mapping[str, str]
) -> LargeOracle:
    """The model of ``spec`` with the checkpoint's ``tensors``, rounded by their keys."""
    config = _config(spec, use_bias, weight_mode(tensors))
    with torch.device("meta"):
        model = upstream.xLSTMForCausalLM(config)
    if spec.tied_head:  # transformers would leave the head at random
        tensors = {**tensors, "lm_head.weight": tensors[_EMBEDDING]}
        if _EMBEDDING in rounding:
            rounding = {**rounding, "lm_head.weight": rounding[_EMBEDDING]}
    load_in_float64(model, tensors, rounding)
    block: Any
    for block in model.backbone.blocks:
        # xLSTMConfig refuses None; its object has no other way to say that a cap is off
        vars(block.mlstm_layer.config)["gate_soft_cap"] = first_cell(spec).gate_soft_cap or None

    def forward(tokens: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        cache = upstream.xLSTMCache(config, tokens.shape[0], dtype=torch.float64)
        # its own tensors round K and V up to multiples of 64, other than the layers
        cache.rnn_state = dict(enumerate(state))
        output = model.backbone(tokens, cache_params=cache, use_cache=True)
        # the model's own forward does the same, but casts to float32 before the cap
        logits = model.lm_head(output.last_hidden_state)
        logits = soft_cap(logits, spec.logit_soft_cap or None)
        return logits, [cache.rnn_state[layer] for layer in range(len(state))]

    own = f"via xlstm {version('xlstm')}" if upstream.external_xlstm else "own kernels"
    return LargeOracle(oracle_name("transformers", "xLSTMForCausalLM", own), spec, model, forward)


def _config(spec: ModelSpec, use_bias: bool, mode: str) -> xLSTMConfig:
    return xLSTMConfig(
        **size_arguments(spec),
        **NATIVE,
        hidden_size=spec.model_size,
        num_hidden_layers=len(spec.blocks),
        use_bias=use_bias,
        norm_eps=spec.blocks[0].mixer_norm.eps,
        eps=first_cell(spec).eps,
        weight_mode=mode,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
