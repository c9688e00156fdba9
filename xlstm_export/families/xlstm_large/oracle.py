"""The package xlstm's xLSTMLarge as reference. Importing this file imports torch and xlstm."""

from __future__ import annotations

from importlib.metadata import version

import torch
from torch import Tensor
from xlstm.xlstm_large.model import soft_cap, xLSTMLarge, xLSTMLargeConfig

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
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.storage import Storage


def build(checkpoint: Checkpoint, storage: Storage, part: ModelSpec | None = None) -> LargeOracle:
    """The model of ``checkpoint``, or ``part`` of it, its numbers as ``storage`` leaves them."""
    spec = checkpoint.spec
    config = xLSTMLargeConfig(
        **size_arguments(spec),
        **NATIVE,
        use_bias=checkpoint.fields.use_bias,
        add_out_norm=any(path == "out_norm" for path, _ in spec.layers),
        norm_eps=norm_eps(spec),
        eps=first_cell(spec).eps,
        gate_soft_cap=first_cell(spec).gate_soft_cap or None,
        output_logit_soft_cap=logit_cap(spec),
        weight_mode=weight_mode(checkpoint.tensors),
        return_last_states=True,
    )
    with torch.device("meta"):
        model = xLSTMLarge(config)
    load_in_float64(model, float64_tensors(checkpoint, storage, part), part is not None)

    def forward(tokens: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        logits, after = model(tokens, dict(enumerate(state)))
        return logits, [after[layer] for layer in range(len(state))]

    def head(x: Tensor) -> Tensor:
        logits: Tensor = soft_cap(model.lm_head(x), config.output_logit_soft_cap)
        return logits

    backbone = model.backbone
    run: Forward = forward
    if part is not None:
        run = part_forward(part, model.embedding, backbone.blocks, backbone.out_norm, head)
    kernels = f"mlstm_kernels {version('mlstm_kernels')}"
    return LargeOracle(oracle_name("xlstm", "xLSTMLarge", kernels), part or spec, model, run)
