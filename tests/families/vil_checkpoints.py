"""Random Vision-LSTM checkpoints on disk, in the layouts of upstream's modules and of its files.

Written from the names and shapes that upstream's modules have; every parameter is random, since
upstream's zeros hide errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
import yaml
from safetensors.torch import save_file

from xlstm_export.checkpoint.source import Source

Layout = Literal["trained", "module"]
HEADS = 4
DIRECTIONS = ("rowwise_from_top_left", "rowwise_from_bot_right")


def make_vil(
    folder: Path,
    *,
    seed: int = 0,
    version: Literal[1, 2] = 2,
    layout: Layout = "trained",
    size: int = 16,
    blocks: int = 4,
    patch: int = 4,
    grid: tuple[int, int] = (3, 5),
    channels: int = 3,
    classes: int | None = 7,
    with_norms: bool = True,
    with_biases: bool = True,
    causal: bool = False,
    mean: bool = False,
    file: str = "vil.th",
    settings: Mapping[str, object] | None = None,
    resolution: tuple[int, int] | None = None,
    stored_type: torch.dtype = torch.float32,
) -> Source:
    """Write ``file`` into ``folder``: {"state_dict": tensors} unless it is safetensors.

    ``classes`` None: no head. ``with_norms`` False: without the norms that upstream calls legacy.
    ``with_biases``, ``causal`` and ``mean`` are of version 2 alone. ``settings`` are written beside
    it, as a configuration; ``resolution`` is what the source asks for.
    """
    is_first = version == 1
    shapes = dict(
        vil_shapes(
            size, blocks, patch, grid, channels, classes, with_norms,
            has_biases=with_biases and not is_first, is_causal=causal or is_first,
            is_mean=mean or is_first, is_first=is_first,
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name_in(layout, version, key, causal or is_first): _random(key, shape, generator).to(
            stored_type
        )
        for key, shape in shapes.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors}, path)
    config = None
    if settings is not None:
        config = folder / "settings.yaml"
        config.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
    return Source(path, config, resolution=resolution)


def vil_shapes(
    size: int, blocks: int, patch: int, grid: tuple[int, int], channels: int,
    classes: int | None, with_norms: bool, *, has_biases: bool, is_causal: bool, is_mean: bool,
    is_first: bool,
) -> Iterator[tuple[str, tuple[int, ...]]]:  # fmt: skip
    """Keys with {first}, {last}, {head} for what the layouts name differently, and shapes."""
    yield "patch_embed.proj.weight", (size, channels, patch, patch)
    yield "patch_embed.proj.bias", (size,)
    yield "pos_embed.embed", (1, *grid, size)
    for index in range(blocks):
        for key, shape in _block_shapes(size, has_biases, is_causal):
            yield f"blocks.{index}.{key}", shape
    if with_norms or not is_first:
        yield "first.weight", (size,)
        if has_biases:
            yield "first.bias", (size,)
    pooled = size if is_mean or classes is None else 2 * size
    if with_norms or is_first:
        yield "last.weight", (pooled,)
        yield "last.bias", (pooled,)
    if classes is not None:
        yield "head.weight", (classes, pooled)
        yield "head.bias", (classes,)


def _block_shapes(
    size: int, has_biases: bool, is_causal: bool
) -> Iterator[tuple[str, tuple[int, ...]]]:
    inner = 2 * size
    yield "norm.weight", (size,)
    yield "layer.proj_up.weight", (2 * inner, size)
    for name in "qkv":
        yield f"layer.{name}_proj.weight", (inner // HEADS, HEADS, HEADS)
    yield "layer.conv.weight", (inner, 1, 4) if is_causal else (inner, 1, 3, 3)
    yield "layer.conv.bias", (inner,)
    for gate in ("igate", "fgate"):
        yield f"layer.mlstm_cell.{gate}.weight", (HEADS, 3 * inner)
        yield f"layer.mlstm_cell.{gate}.bias", (HEADS,)
    yield "layer.mlstm_cell.outnorm.weight", (inner,)
    yield "layer.learnable_skip", (inner,)
    yield "layer.proj_down.weight", (size, inner)
    if has_biases:
        yield "norm.bias", (size,)
        yield "layer.mlstm_cell.outnorm.bias", (inner,)
        yield "layer.proj_up.bias", (2 * inner,)
        yield "layer.proj_down.bias", (size,)
        for name in "qkv":
            yield f"layer.{name}_proj.bias", (inner,)


def name_in(layout: Layout, version: int, key: str, is_causal: bool) -> str:
    """``key`` of ``vil_shapes`` as ``layout`` has it."""
    first, _, rest = key.partition(".")
    convolution = {
        ("trained", True): "conv1d.conv", ("trained", False): "conv1d",
        ("module", True): "conv1d.conv" if version == 1 else "conv.conv",
        ("module", False): "conv",
    }[layout, is_causal]  # fmt: skip
    rest = rest.replace(".conv.", f".{convolution}.")
    if layout == "trained":
        rest = rest.replace(".norm.", ".xlstm_norm.").replace(".layer.", ".xlstm.")
        names = {
            "blocks": "xlstm.blocks", "first": "xlstm.post_blocks_norm", "last": "head.0",
            "head": "head.1",
        }  # fmt: skip
        return f"{names.get(first, first)}.{rest}"
    if version == 2 and first == "blocks":
        index, _, rest = rest.partition(".")
        return f"blocks.{int(index) // 2}.{DIRECTIONS[int(index) % 2]}.{rest}"
    norms = ("legacy_norm", "norm") if version == 1 else ("norm", "legacy_norm")
    names = {"first": norms[0], "last": norms[1]}
    return f"{names.get(first, first)}.{rest}"


def _random(key: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Forget pre-activations around 3, input around 0; matrices keep the scale of their input."""
    scale, mean = _distribution(key, shape)
    return torch.randn(shape, generator=generator) * scale + mean


def _distribution(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if key.endswith("fgate.bias"):
        return 1.0, 3.0
    if key.endswith("igate.bias"):
        return 1.0, 0.0
    if key.endswith("learnable_skip"):
        return 0.5, 1.0
    if key == "last.weight":
        return 0.3, 1.0
    if key.endswith(("norm.weight", "first.weight", "bias")):
        return 0.3, 0.0
    if key == "pos_embed.embed":
        return 0.5, 0.0
    gain = 2.0 if "gate" in key else 1.0
    return gain / math.sqrt(
        math.prod(shape[1:]) if ".conv." in key or "patch" in key else shape[-1]
    ), 0.0
