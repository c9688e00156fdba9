"""Random checkpoints of both xLSTM-7B layouts, written by upstream's own modules.

Upstream initialises gate weights to zero and norms to one, which hides errors: here everything
is random, with forget gates around 3 and input gates around 0 (both +-2).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.models.xlstm.configuration_xlstm import xLSTMConfig
from transformers.models.xlstm.modeling_xlstm import xLSTMForCausalLM
from xlstm.xlstm_large.model import xLSTMLarge, xLSTMLargeConfig

from tests.families.upstream import Upstream
from xlstm_export.checkpoint.source import Source
from xlstm_export.families.oracle import FloatArray
from xlstm_export.families.registry import find_family

IntArray = npt.NDArray[np.integer]

NATIVE = {
    "chunkwise_kernel": "chunkwise--native_autograd",
    "sequence_kernel": "native_sequence__native",
    "step_kernel": "native",
    "autocast_kernel_dtype": "float32",
    "mode": "inference",
    "return_last_states": True,
}

SIZES = {"embedding_dim": 64, "num_heads": 2, "num_blocks": 2, "vocab_size": 61}

# fields of the released 7B configuration that transformers does not read
DEAD_KEYS = {
    "head_dim": 32, "cell_norm_eps": 0.5, "add_embedding_dropout": False, "add_qk_norm": False,
    "add_forward_backend_padding": False, "add_post_blocks_norm": True, "add_post_norm": False,
    "force_bos_token_insert": True, "igate_bias_init_range": -10.0,
    "mlstm_round_up_to_multiple_of": 64,
}  # fmt: skip


# canonical name below blocks.i -> upstream's module below backbone.blocks.i
BLOCK_LAYERS = {
    "mixer_norm": "norm_mlstm", "ffn_norm": "norm_ffn",
    "mlstm.q": "mlstm_layer.q", "mlstm.k": "mlstm_layer.k", "mlstm.v": "mlstm_layer.v",
    "mlstm.output_gate": "mlstm_layer.ogate_preact",
    "mlstm.input_gate": "mlstm_layer.igate_preact",
    "mlstm.forget_gate": "mlstm_layer.fgate_preact",
    "mlstm.head_norm": "mlstm_layer.multihead_norm", "mlstm.out": "mlstm_layer.out_proj",
    "ffn.gate": "ffn.proj_up_gate", "ffn.up": "ffn.proj_up", "ffn.down": "ffn.proj_down",
}  # fmt: skip


class Made(NamedTuple):
    """A checkpoint on disk, and the float32 upstream module whose numbers it holds."""

    source: Source
    model: nn.Module


def make_xlstm_large(
    folder: Path, *, seed: int = 0, weight_mode: str = "single", shards: int = 1, **config: Any
) -> Made:
    """An xLSTMLarge folder: config.yaml, and model.safetensors or model_0, model_1, ...

    Its ``model`` has the weights of ``weight_mode``; the numbers depend on ``seed`` alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields = {**SIZES, **NATIVE, **config}
    single = xLSTMLarge(xLSTMLargeConfig(**fields)).eval()
    randomise(single, seed)
    model, tensors = single, dict(single.state_dict())
    if weight_mode == "fused":
        tensors = fuse(tensors)
        model = xLSTMLarge(xLSTMLargeConfig(**fields, weight_mode="fused")).eval()
        model.load_state_dict(tensors)
    names = [f"model_{n}.safetensors" for n in range(shards)]
    if shards == 1:
        names = ["model.safetensors"]
    for name, part in zip(names, _deal(tensors, shards), strict=True):
        save_file(part, folder / name)
    text = yaml.safe_dump({**SIZES, **config, "weight_mode": weight_mode})
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return Made(Source(folder), model)


def make_hf(
    folder: Path, *, seed: int = 0, dtype: str = "float32", shards: int = 1,
    legacy_keys: bool = False, tied: bool = False, bare: bool = False,
    weight_mode: str = "single", **config: Any,
) -> Made:  # fmt: skip
    """A transformers folder: config.json, and model.safetensors or shards with an index.

    The weights are rounded to ``dtype``; ``model`` holds them in float32. ``tied`` stores no head,
    ``bare`` an xLSTMModel alone.
    ``legacy_keys`` writes the field names of the released 7B configuration.
    """
    fields = {**SIZES, **NATIVE, "weight_mode": weight_mode, **config}
    fields |= {
        "hidden_size": fields["embedding_dim"],
        "num_hidden_layers": fields["num_blocks"],
    }
    ids = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    config_object = xLSTMConfig(**fields, **ids, tie_word_embeddings=tied)
    with torch.device("meta"):  # its initialisation of fused weights raises
        model = xLSTMForCausalLM(config_object)
    model.to_empty(device="cpu").eval()
    randomise(model, seed)
    model.to(getattr(torch, dtype))
    if tied:
        model.lm_head.weight = model.backbone.embeddings.weight
    if bare:
        model = model.backbone
        model.config.architectures = ["xLSTMModel"]
    _save_hf(model, folder, shards, tied)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if legacy_keys:
        for name in ("hidden_size", "num_hidden_layers", "dtype", "architectures"):
            values.pop(name, None)
        values |= DEAD_KEYS | {"chunkwise_kernel": "chunkwise--triton_xl_chunk"}
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return Made(Source(folder), model.float())


def randomise(model: nn.Module, seed: int) -> None:
    """Every parameter of ``model`` (weight mode single or fused) drawn by its role."""
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor, scale: float, mean: float = 0.0) -> Tensor:
        return mean + scale * torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_bias, gate = name.endswith("bias"), "gate_preact" in name and "ogate" not in name
            if gate and is_bias:
                value = normal(parameter, 0.5)
                forget = parameter.shape[0] // 2 if "ifgate" in name else 0
                value[forget:] += 0.0 if "igate" in name else 3.0
            elif "norm" in name:
                value = normal(parameter, 0.3, 0.0 if is_bias else 1.0)
            elif is_bias:
                value = normal(parameter, 0.3)
            elif "embedding" in name:
                value = normal(parameter, 1.0)
            else:
                scale = 2.0 if gate else 6.0 if "lm_head" in name else 1.0
                value = normal(parameter, scale * parameter.shape[-1] ** -0.5)
            parameter.copy_(value)


def fuse(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Single to fused names; upstream's own conversion fails from eleven blocks on."""
    groups = {
        "mlstm_layer.qkv_opreact": ("q", "k", "v", "ogate_preact"),
        "mlstm_layer.ifgate_preact": ("igate_preact", "fgate_preact"),
        "ffn.proj_up_gate_z": ("proj_up_gate", "proj_up"),
    }
    tensors = dict(tensors)
    prefixes = {name.partition(".norm_ffn.")[0] for name in tensors if ".norm_ffn." in name}
    for prefix in prefixes:
        for fused, parts in groups.items():
            module = fused.partition(".")[0]
            for leaf in ("weight", "bias"):
                names = [f"{prefix}.{module}.{part}.{leaf}" for part in parts]
                if names[0] in tensors:
                    joined = torch.cat([tensors.pop(name) for name in names])
                    tensors[f"{prefix}.{fused}.{leaf}"] = joined
    return tensors


def _deal(tensors: dict[str, Tensor], shards: int) -> list[dict[str, Tensor]]:
    """The tensors in ``shards`` parts, each a contiguous copy."""
    parts: list[dict[str, Tensor]] = [{} for _ in range(shards)]
    for index, (name, tensor) in enumerate(tensors.items()):
        parts[index % shards][name] = tensor.detach().clone().contiguous()
    return parts


def _save_hf(model: nn.Module, folder: Path, shards: int, tied: bool) -> None:
    """config.json by transformers, weights under its names; it does not know tied heads."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    tensors = dict(model.state_dict())
    if tied:
        del tensors["lm_head.weight"]
    if shards == 1:
        save_file(_deal(tensors, 1)[0], folder / "model.safetensors", {"format": "pt"})
        return
    weight_map = {}
    for index, part in enumerate(_deal(tensors, shards)):
        name = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def expected_weights(model: torch.nn.Module, blocks: int, embedding: str) -> dict[str, Any]:
    """Every parameter of an upstream module in weight mode single, by canonical name."""
    names = {embedding: "embedding", "lm_head": "head", "backbone.out_norm": "out_norm"}
    for i in range(blocks):
        for ours, theirs in BLOCK_LAYERS.items():
            names[f"backbone.blocks.{i}.{theirs}"] = f"layers.{i}.{ours}"
    renamed = {}
    for key, parameter in model.named_parameters():
        module, _, leaf = key.rpartition(".")
        renamed[f"{names[module]}.{leaf}"] = parameter.detach().numpy()
    return renamed


def edit_tensors(made: Made, **changes: torch.Tensor | None) -> Source:
    """``made`` with tensors replaced (dots written __), or removed where None."""
    path = made.source.path / "model.safetensors"
    tensors = {**load_file(path), **{k.replace("__", "."): v for k, v in changes.items()}}
    save_file({k: v for k, v in tensors.items() if v is not None}, path)
    return made.source


def stored_in_bfloat16(source: Source) -> dict[str, Tensor]:
    """The tensors of ``source`` by key; in bfloat16 those of which its bundle keeps no more."""
    checkpoint = find_family(source).read(source)
    specs, tensors = checkpoint.spec.weights(), load_file(source.path / "model.safetensors")
    for name, weight in checkpoint.weights.items():
        if not specs[name].stays_float32:
            tensors |= {key: tensors[key].bfloat16() for key in weight.sources}
    return tensors


def rms_difference(ours: FloatArray, theirs: FloatArray) -> float:
    """Root mean square of the difference, relative to that of ``theirs``."""
    return float(np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(theirs**2)))


def assert_splits_agree(oracle: Upstream, ids: IntArray, cuts: Sequence[int]) -> None:
    """The parts of ``ids`` between ``cuts`` with carried state give what one run gives."""
    whole, whole_state = oracle.run(ids)
    parts, state = [], None
    for start, stop in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
        before = None if state is None else {key: value.copy() for key, value in state.items()}
        logits, after = oracle.run(ids[:, start:stop], state)
        if state is not None and before is not None:
            assert all(np.array_equal(state[key], before[key]) for key in state)
        parts.append(logits)
        state = after
    assert state is not None
    assert whole.dtype == np.float64
    assert rms_difference(np.concatenate(parts, axis=1), whole) < 1e-12
    for key, value in whole_state.items():
        assert value.dtype == np.float64
        assert rms_difference(state[key], value) < 1e-12, key
