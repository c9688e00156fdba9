"""Random TiRex checkpoints, written by upstream's own module.

Everything is random: gates, R, norms, biases; forget gates are around 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from tirex.models.tirex import TiRexZero

from xlstm_export.checkpoint.source import Source

SMALL: dict[str, Any] = {
    "blocks": 2, "size": 64, "heads": 2, "hidden": 96, "context": 96, "patch": 8, "levels": 5,
}  # fmt: skip
FULL: dict[str, Any] = {
    "blocks": 12, "size": 512, "heads": 4, "hidden": 2048, "context": 2048, "patch": 32,
    "levels": 9,
}  # fmt: skip


class MadeTiRex(NamedTuple):
    """A checkpoint on disk, and the upstream module whose numbers it holds."""

    source: Source
    model: TiRexZero


def hyper_parameters(
    *, blocks: int, size: int, heads: int, hidden: int, context: int, patch: int, levels: int
) -> dict[str, Any]:
    """The arguments of TiRexZero, as Lightning keeps them."""
    config = {
        "input_patch_size": patch,
        "output_patch_size": patch,
        "quantiles": [round((n + 1) / (levels + 1), 4) for n in range(levels)],
        "block_kwargs": {"embedding_dim": size, "num_heads": heads, "num_blocks": blocks},
        "input_ff_dim": hidden,
    }
    return {"model_config": config, "train_ctx_len": context}


def make_tirex(folder: Path, *, seed: int = 0, **sizes: int) -> MadeTiRex:
    """A folder with model.ckpt, of ``SMALL`` sizes but for those given."""
    folder.mkdir(parents=True, exist_ok=True)
    hyper = hyper_parameters(**{**SMALL, **sizes})
    model = TiRexZero(backend="torch", **hyper).eval()
    randomise(model, seed)
    content = {
        "epoch": 1, "global_step": 10, "pytorch-lightning_version": "2.4.0",
        "state_dict": {stored_name(name): value for name, value in model.state_dict().items()},
        "hyper_parameters": hyper,
    }  # fmt: skip
    torch.save(content, folder / "model.ckpt")
    return MadeTiRex(Source(folder), model)


def stored_name(name: str) -> str:
    """As the training code named it."""
    return f"block_stack.{name}" if name.startswith(("blocks.", "out_norm.")) else name


def randomise(model: TiRexZero, seed: int) -> None:
    """Every parameter of ``model`` drawn by its role."""
    generator = torch.Generator().manual_seed(seed)
    kwargs = model.config.block_kwargs
    heads, head = kwargs["num_heads"], kwargs["embedding_dim"] // kwargs["num_heads"]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                value = 0.3 * value + (0.0 if "group_norm" in name else 1.0)
            elif name.endswith("_bias_"):
                value = 0.5 * value.view(heads, 4, head)
                value[:, 1] += 3.0
                value = value.flatten()
            elif "_recurrent_kernel_" in name:
                value *= head**-0.5
            else:
                value *= 0.3 if name.endswith("bias") else parameter.shape[-1] ** -0.5
            parameter.copy_(value)
