"""TiRex-2 folders with random weights, written as upstream's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.cases import Array


def tirex2_config(
    *, size: int = 32, heads: int = 4, slstm_heads: int | None = 4, context: int = 48,
    future: int = 24, patch: int = 8, recipe: tuple[str, ...] = ("m", "s"), hidden: int = 40,
    variate_heads: int = 4, **others: Any,
) -> dict[str, Any]:  # fmt: skip
    """The fields of config.json: small, and in the order of upstream's arguments."""

    def template(model_type: str) -> dict[str, Any]:
        mixer = {"model_type": model_type, "embedding_dim": size, "num_heads": heads}
        return {
            "time_mixer": mixer | {"num_slstm_heads": slstm_heads},
            "variate_mixer": {"embedding_dim": size, "num_heads": variate_heads},
            "dropout": 0.1,
            "eps": 1e-6,
        }

    return {
        "stack_config": {
            "templates": {"m": template("bi-mlstm"), "s": template("bi-slstm")},
            "recipe": list(recipe),
        },
        "num_blocks": len(recipe),
        "embedding_dim": size,
        "input_patch_size": patch,
        "output_patch_size": patch,
        "quantiles": [q / 10 for q in range(1, 10)],
        "tokenizer_cfg": {
            "input_patch_size": patch,
            "output_patch_size": patch,
            "input_patch_stride": patch,
        },
        "scaler_cfg": {"eps": 1e-8, "use_arcsinh": True},
        "h_expand": 4,
        "context_len": context,
        "future_len": future,
        "input_ff_dim": hidden,
        "act_func": "SiLU",
        "dropout": 0.1,
        "stack_out_norm_config": {"eps": 1e-6, "use_rmsnorm": True},
        "tta_diff": True,
        **others,
    }


def tirex2_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, Array]:
    """Every tensor once: gates, norms and R random too, each scaled by its fan-in."""
    random = np.random.default_rng(seed)
    size, patch = config["embedding_dim"], config["input_patch_size"]
    shapes: dict[str, tuple[int, ...]] = {}

    def residual_block(at: str, inputs: int, hidden: int, outputs: int) -> None:
        for name, shape in (
            ("hidden_layer", (hidden, inputs)), ("output_layer", (outputs, hidden)),
            ("residual_layer", (outputs, inputs)),
        ):  # fmt: skip
            shapes[f"{at}.{name}.weight"] = shape
            shapes[f"{at}.{name}.bias"] = shape[:1]

    residual_block("input_patch_embedding", 2 * patch, config["input_ff_dim"], size)
    outputs = len(config["quantiles"]) * patch
    residual_block("output_patch_embedding", size, int(size * config["h_expand"]), outputs)
    if config.get("stack_out_norm_config") is not None:
        shapes["stack_out_norm.weight"] = (size,)
    for index, name in enumerate(config["stack_config"]["recipe"]):
        template = config["stack_config"]["templates"][name]
        shapes |= _block_shapes(f"stack.{index}", template, size)
    return {name: _numbers(name, shape, random) for name, shape in shapes.items()}


def _block_shapes(at: str, template: dict[str, Any], size: int) -> dict[str, tuple[int, ...]]:
    time, cell = f"{at}.time_mixer", f"{at}.time_mixer.fwd_cell"
    hidden = int((size * 2.6667 + 63) // 64) * 64
    shapes: dict[str, tuple[int, ...]] = {
        f"{time}.norm_lstm.weight": (size,),
        f"{time}.combination.weight": (size, 2 * size),
        f"{time}.norm_ffn.weight": (size,),
        f"{time}.ffn.proj_up_gate.weight": (hidden, size),
        f"{time}.ffn.proj_up.weight": (hidden, size),
        f"{time}.ffn.proj_down.weight": (size, hidden),
        f"{at}.variate_mixer.norm_attn.weight": (size,),
        f"{at}.variate_mixer.norm_ffn.weight": (size,),
        f"{at}.variate_mixer.ffn.wi.weight": (4 * size, size),
        f"{at}.variate_mixer.ffn.wo.weight": (size, 4 * size),
    }
    shapes |= {
        f"{at}.variate_mixer.attn.{w}.weight": (size, size) for w in ("WK", "WQ", "WV", "WO")
    }
    mixer = template["time_mixer"]
    if mixer["model_type"] == "bi-mlstm":
        heads = mixer["num_heads"]
        for name, rows in (("q", size // 2), ("k", size // 2), ("v", size), ("ogate_preact", size)):
            shapes[f"{cell}.{name}.weight"] = (rows, size)
        for name in ("igate_preact", "fgate_preact"):
            shapes[f"{cell}.{name}.weight"] = (heads, size)
            shapes[f"{cell}.{name}.bias"] = (heads,)
        return shapes | {
            f"{cell}.multihead_norm.weight": (size,),
            f"{cell}.out_proj.weight": (size, size),
        }
    heads = mixer["num_slstm_heads"] or mixer["num_heads"]
    head = size // heads
    for name in ("fgate", "igate", "zgate", "ogate"):
        shapes[f"{cell}.{name}.weight"] = (heads, head, head)
    return shapes | {
        f"{cell}._recurrent_kernel_": (heads, head, 4, head),
        f"{cell}._bias_": (heads, 4, head),
        f"{cell}.group_norm.weight": (size,),
    }


def _numbers(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    numbers = random.standard_normal(shape).astype(np.float32)
    if "norm" in name:
        return (1 + 0.2 * numbers).astype(np.float32)
    if len(shape) == 1 or name.endswith("._bias_"):
        return numbers
    fan_in = shape[1] if name.endswith("_recurrent_kernel_") else shape[-1]
    return (numbers / np.sqrt(fan_in)).astype(np.float32)


def write_tirex2(folder: Path, seed: int = 0, **options: Any) -> Path:
    """A folder of config.json and model.safetensors; ``options`` as of ``tirex2_config``."""
    config = tirex2_config(**options)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tirex2_tensors(config, seed), folder / "model.safetensors")
    return folder


PUBLISHED: dict[str, Any] = {
    "size": 512, "heads": 4, "slstm_heads": 4, "variate_heads": 4, "context": 2048, "future": 320,
    "patch": 32, "recipe": ("m", "s") * 6, "hidden": 2048,
}  # fmt: skip
"""82 M parameters, 38 M of which one series alone uses, as upstream says of its model."""
