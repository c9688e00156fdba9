"""An export streams: its memory grows by a few tensors, not by the size of the model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.child import run_cli

HEADS = 4


def write_checkpoint(folder: Path, width: int, blocks: int, vocabulary: int) -> int:
    """A random Hugging Face checkpoint made without torch; returns the bytes of its weights."""
    config = {
        "model_type": "xlstm", "embedding_dim": width, "hidden_size": width, "num_heads": HEADS,
        "num_blocks": blocks, "num_hidden_layers": blocks, "vocab_size": vocabulary,
        "qk_dim_factor": 0.5, "v_dim_factor": 1.0, "ffn_proj_factor": 2.667,
        "ffn_round_up_to_multiple_of": 64, "weight_mode": "single", "gate_soft_cap": 15.0,
        "output_logit_soft_cap": 30.0, "eps": 1e-6, "norm_eps": 1e-6, "use_bias": False,
        "tie_word_embeddings": False,
    }  # fmt: skip
    hidden = 64 * math.ceil(2.667 * width / 64)
    matrices = {
        "mlstm_layer.q": (width // 2, width), "mlstm_layer.k": (width // 2, width),
        "mlstm_layer.v": (width, width), "mlstm_layer.ogate_preact": (width, width),
        "mlstm_layer.igate_preact": (HEADS, width), "mlstm_layer.fgate_preact": (HEADS, width),
        "mlstm_layer.out_proj": (width, width), "ffn.proj_up_gate": (hidden, width),
        "ffn.proj_up": (hidden, width), "ffn.proj_down": (width, hidden),
    }  # fmt: skip
    vectors = {
        "norm_mlstm.weight": width, "norm_ffn.weight": width,
        "mlstm_layer.multihead_norm.weight": width,
        "mlstm_layer.igate_preact.bias": HEADS, "mlstm_layer.fgate_preact.bias": HEADS,
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.embeddings.weight": (vocabulary, width),
        "backbone.out_norm.weight": (width,),
        "lm_head.weight": (vocabulary, width),
    }
    for block in range(blocks):
        root = f"backbone.blocks.{block}"
        shapes |= {f"{root}.{name}.weight": shape for name, shape in matrices.items()}
        shapes |= {f"{root}.{name}": (size,) for name, size in vectors.items()}
    random = np.random.default_rng(0)
    tensors = {name: random.random(shape, np.float32) - 0.5 for name, shape in shapes.items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")
    return sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.parametrize(
    "options", [["--dtype", "fp32"], ["--dtype", "fp16"], ["--weight-format", "int4"]], ids=str
)
def test_memory_of_an_export_is_that_of_a_few_tensors(tmp_path: Path, options: list[str]) -> None:
    write_checkpoint(tmp_path / "small", width=64, blocks=1, vocabulary=64)
    size = write_checkpoint(tmp_path / "large", width=512, blocks=7, vocabulary=2048)
    assert size > 95e6
    runs = {
        name: run_cli(
            ["export", str(tmp_path / name), "-o", str(tmp_path / f"{name}.out"), *options]
        )
        for name in ("small", "large")
    }
    grown = runs["large"].peak_bytes - runs["small"].peak_bytes
    assert grown < size / 4, f"{grown / 1e6:.0f} MB more for a model of {size / 1e6:.0f} MB"
