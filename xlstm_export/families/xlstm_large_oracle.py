"""The package xlstm's xLSTMLarge as reference. Importing this file imports torch and xlstm."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import torch
from torch import Tensor
from xlstm.xlstm_large.model import xLSTMLarge, xLSTMLargeConfig

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


def build(
    spec: ModelSpec, use_bias: bool, tensors: Weights, rounding: Mapping[str, str]
) -> LargeOracle:
    """The model of ``spec`` with the checkpoint's ``tensors``, rounded by their keys."""
    config = xLSTMLargeConfig(
        **size_arguments(spec),
        **NATIVE,
        use_bias=use_bias,
        add_out_norm=spec.out_norm is not None,
        norm_eps=spec.blocks[0].mixer_norm.eps,
        eps=first_cell(spec).eps,
        gate_soft_cap=first_cell(spec).gate_soft_cap or None,
        output_logit_soft_cap=spec.logit_soft_cap or None,
        weight_mode=weight_mode(tensors),
        return_last_states=True,
    )
    with torch.device("meta"):
        model = xLSTMLarge(config)
    load_in_float64(model, tensors, rounding)

    def forward(tokens: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        logits, after = model(tokens, dict(enumerate(state)))
        return logits, [after[layer] for layer in range(len(state))]

    kernels = f"mlstm_kernels {version('mlstm_kernels')}"
    return LargeOracle(oracle_name("xlstm", "xLSTMLarge", kernels), spec, model, forward)
