"""A checkpoint of the shape of xLSTM-7B, written tensor by tensor: random, bfloat16, 13.7 GB."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from xlstm_export.checkpoint.source import Source

WIDTH, BLOCKS, HEADS, VOCABULARY = 4096, 32, 8, 50_304
HIDDEN = 10_944
_TILE = 1 << 22
"""Numbers drawn once; the file repeats them, each tensor from another place on."""
_APART = 100_003


def xlstm_7b(folder: Path, blocks: int = BLOCKS) -> Source:
    """The folder with config.json and model.safetensors; written where it is not there yet."""
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "model.safetensors", list(_shapes(blocks)))
        (folder / "config.json").write_text(json.dumps(_config(blocks)), encoding="utf-8")
    return Source(folder)


def _config(blocks: int) -> dict[str, object]:
    return {
        "model_type": "xlstm", "embedding_dim": WIDTH, "hidden_size": WIDTH, "num_heads": HEADS,
        "num_blocks": blocks, "num_hidden_layers": blocks, "vocab_size": VOCABULARY,
        "qk_dim_factor": 0.5, "v_dim_factor": 1.0, "ffn_proj_factor": 2.667,
        "ffn_round_up_to_multiple_of": 64, "weight_mode": "single", "gate_soft_cap": 15.0,
        "output_logit_soft_cap": 30.0, "eps": 1e-6, "norm_eps": 1e-6, "use_bias": False,
        "tie_word_embeddings": False, "bos_token_id": 0, "force_bos_token_insert": False,
    }  # fmt: skip


def _shapes(blocks: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "backbone.embeddings.weight", (VOCABULARY, WIDTH)
    for block in range(blocks):
        mixer, ffn = (f"backbone.blocks.{block}.{name}" for name in ("mlstm_layer", "ffn"))
        for name, rows in (("q", WIDTH // 2), ("k", WIDTH // 2), ("v", WIDTH),
                           ("ogate_preact", WIDTH), ("out_proj", WIDTH)):  # fmt: skip
            yield f"{mixer}.{name}.weight", (rows, WIDTH)
        for name in ("igate_preact", "fgate_preact"):
            yield f"{mixer}.{name}.weight", (HEADS, WIDTH)
            yield f"{mixer}.{name}.bias", (HEADS,)
        yield f"{mixer}.multihead_norm.weight", (WIDTH,)
        for name, shape in (("proj_up_gate", (HIDDEN, WIDTH)), ("proj_up", (HIDDEN, WIDTH)),
                            ("proj_down", (WIDTH, HIDDEN))):  # fmt: skip
            yield f"{ffn}.{name}.weight", shape
        for name in ("norm_mlstm", "norm_ffn"):
            yield f"backbone.blocks.{block}.{name}.weight", (WIDTH,)
    yield "backbone.out_norm.weight", (WIDTH,)
    yield "lm_head.weight", (VOCABULARY, WIDTH)


def _write(path: Path, shapes: list[tuple[str, tuple[int, ...]]]) -> None:
    """safetensors: eight bytes of the header's length, the header, the numbers."""
    header, end = {}, 0
    for name, shape in shapes:
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    random = np.random.default_rng(0)
    tile = (random.standard_normal(_TILE, np.float32) * WIDTH**-0.5).astype(ml_dtypes.bfloat16)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index, (name, shape) in enumerate(shapes):
            count = math.prod(shape)
            numbers = np.roll(tile, index * _APART)  # gates that are alike would hide a swap
            numbers = numbers + np.float32(1) if "norm" in name else numbers
            numbers = numbers.astype(ml_dtypes.bfloat16)
            for start in range(0, count, _TILE):
                file.write(numbers[: min(_TILE, count - start)].tobytes())
