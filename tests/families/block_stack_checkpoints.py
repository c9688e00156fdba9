"""Random block-stack checkpoints on disk, made by upstream's own package.

Upstream initialises gate weights, recurrent matrices and norm offsets to zero, which hides
errors; here every parameter is random, at scales that keep gates and activations realistic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from safetensors.torch import load_file, save_file
from xlstm import (
    FeedForwardConfig,
    mLSTMBlockConfig,
    mLSTMLayerConfig,
    sLSTMBlockConfig,
    sLSTMLayerConfig,
    xLSTMBlockStack,
    xLSTMBlockStackConfig,
    xLSTMLMModel,
    xLSTMLMModelConfig,
)
from xlstm.blocks.slstm.cell import sLSTMCell, sLSTMCellConfig

from xlstm_export.checkpoint.source import Source

Layout = Literal["vanilla", "cuda"]
FileName = Literal["model.safetensors", "model.pt", "model.pth"]

_ROUND = {"round_proj_up_to_multiple_of": 8}


def make_block_stack(
    folder: Path,
    *,
    seed: int = 0,
    lm: bool = True,
    file: FileName = "model.safetensors",
    layout: Layout = "vanilla",
    stored_type: torch.dtype = torch.float32,
    input_gate_mean: float = 0.0,
    **config: Any,
) -> tuple[Source, xLSTMLMModel | xLSTMBlockStack]:
    """Write config.yaml and ``file`` into ``folder``; returns the source and upstream's module.

    ``config`` overrides fields of the stack; ``mlstm``, ``slstm`` and ``feedforward`` override
    fields of those layers (or leave them out when None). The sLSTM cells are stored in
    ``layout``; the module always computes with the vanilla backend. ``input_gate_mean`` is that
    of the mLSTM input gates.
    """
    fields = block_stack_config(lm=lm, **config)
    torch.manual_seed(seed)
    module = build_upstream(fields)
    randomise(module, input_gate_mean)
    tensors = {k: v.to(stored_type) for k, v in stored_tensors(module, layout).items()}
    folder.mkdir(parents=True, exist_ok=True)
    if "slstm_block" in fields:
        fields["slstm_block"]["slstm"]["backend"] = layout
    (folder / "config.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    save_tensors(tensors, folder / file)
    return Source(folder), module


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """A state dict in the format that the name of ``path`` says."""
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)


def block_stack_config(
    *,
    lm: bool = True,
    mlstm: dict[str, Any] | None = {},  # noqa: B006
    slstm: dict[str, Any] | None = {},  # noqa: B006
    feedforward: dict[str, Any] | None = {},  # noqa: B006
    **stack: Any,
) -> dict[str, Any]:
    """The fields of config.yaml: by default an mLSTM, an sLSTM and an mLSTM block, D = 16."""
    fields: dict[str, Any] = {
        "num_blocks": 3, "embedding_dim": 16, "slstm_at": [1], "context_length": 64
    } | ({"vocab_size": 11} if lm else {})  # fmt: skip
    if mlstm is not None:
        fields["mlstm_block"] = {"mlstm": {"num_heads": 4} | _ROUND | mlstm}
    if slstm is not None:
        ffn = None if feedforward is None else _ROUND | feedforward
        layer = {"num_heads": 2, "backend": "vanilla"} | slstm
        fields["slstm_block"] = {"slstm": layer, "feedforward": ffn}
    return fields | stack


def build_upstream(fields: dict[str, Any]) -> xLSTMLMModel | xLSTMBlockStack:
    """Upstream's module in evaluation mode for the fields of a config.yaml."""
    stack = dict(fields)
    if stack.get("mlstm_block"):
        layer = mLSTMLayerConfig(**stack["mlstm_block"]["mlstm"])
        stack["mlstm_block"] = mLSTMBlockConfig(mlstm=layer)
    if stack.get("slstm_block"):
        ffn = stack["slstm_block"]["feedforward"]
        stack["slstm_block"] = sLSTMBlockConfig(
            slstm=sLSTMLayerConfig(**stack["slstm_block"]["slstm"]),
            feedforward=None if ffn is None else FeedForwardConfig(**ffn),
        )
    if "vocab_size" in stack:
        return xLSTMLMModel(xLSTMLMModelConfig(**stack)).eval()
    return xLSTMBlockStack(xLSTMBlockStackConfig(**stack)).eval()


def randomise(module: torch.nn.Module, input_gate_mean: float = 0.0) -> None:
    """Random numbers in every parameter: forget pre-activations around 3, input around 0."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            scale, mean = _distribution(name, parameter)
            parameter.normal_(mean, scale)
            if name.endswith("mlstm_cell.igate.bias"):
                parameter += input_gate_mean
            if name.endswith("slstm_cell._bias_"):
                parameter.view(4, -1)[1] += 3  # gates i, f, z, o


def _distribution(name: str, parameter: torch.Tensor) -> tuple[float, float]:
    """Standard deviation and mean; matrices keep the scale of what they are applied to."""
    if name.endswith("fgate.bias"):
        return 1.0, 3.0
    if name.endswith("igate.bias"):
        return 1.0, 0.0
    if name.endswith("learnable_skip"):
        return 0.5, 1.0
    if name.endswith(("norm.weight", "bias", "_bias_")):
        return 0.3, 0.0
    if "token_embedding" in name:
        return 1.0, 0.0
    gain = 2.0 if "gate" in name else 1.0
    return gain / math.sqrt(parameter.shape[-1]), 0.0


def stored_tensors(module: torch.nn.Module, layout: Layout) -> dict[str, torch.Tensor]:
    """The state dict as separate tensors, sLSTM cells converted by upstream's own functions."""
    tensors = {k: v.detach().clone().contiguous() for k, v in module.state_dict().items()}
    if layout == "cuda":
        for name, cell in module.named_modules():
            if name.endswith("slstm_cell"):
                sizes = {"hidden_size": cell.config.hidden_size, "num_heads": cell.config.num_heads}
                target = sLSTMCell(sLSTMCellConfig(backend="cuda", **sizes), skip_backend_init=True)
                kernel = target._recurrent_kernel_ext2int(
                    cell._recurrent_kernel_int2ext(cell._recurrent_kernel_.detach())
                )
                bias = target._bias_ext2int(cell._bias_int2ext(cell._bias_.detach()))
                tensors[f"{name}._recurrent_kernel_"] = kernel.clone().contiguous()
                tensors[f"{name}._bias_"] = bias.clone().contiguous()
    return tensors


def edit_config(source: Source, **changes: Any) -> None:
    """Change fields by dotted name written with two underscores; "" removes one."""
    path = source.path / "config.yaml"
    fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        *parents, leaf = name.split("__")
        section = fields
        for parent in parents:
            section = section[parent]
        section[leaf] = value
        if value == "":
            del section[leaf]
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")


def edit_tensors(source: Source, changes: Mapping[str, torch.Tensor | None]) -> None:
    """Replace or add tensors of model.safetensors by key; None removes one."""
    path = source.path / "model.safetensors"
    tensors = load_file(path) | changes
    save_tensors({k: v for k, v in tensors.items() if v is not None}, path)
