"""TiRex (``tirex-ts``): a Lightning checkpoint, or its weights and hyper-parameters side by side.

Maths: TiRex (Auer et al. 2025), section 3: patches of scaled observations through blocks of sLSTM
and SwiGLU to quantiles. The sLSTM is that of ``xlstm.blocks``: its module ``fgate`` feeds slot i
and ``igate`` slot f, R and bias are in order, in the layout of the CUDA backend.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from xlstm_export.bundle.manifest import ForecastInfo, TensorInfo
from xlstm_export.checkpoint.foreign import ForeignError
from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.checkpoint.tensor_table import LayerTensors, TensorTable, placed
from xlstm_export.checkpoint.weight_files import WEIGHT_SUFFIXES, read_weight_files
from xlstm_export.errors import CheckpointError
from xlstm_export.families.tirex.fields import TiRexFields, read_fields
from xlstm_export.model.layer import Layer
from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.patches import Patches
from xlstm_export.model.layers.quantile_head import QuantileHead
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.layers.residual_mlp import ResidualMLP
from xlstm_export.model.layers.series_scaler import SeriesScaler
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.spec import BATCH, ModelSpec
from xlstm_export.model.weights import Weight, Weights

_STACK = "block_stack."
"""Where the training code kept its blocks; upstream takes it out of every name."""

_PATCHES, _HEAD = "input_patch_embedding", "output_patch_embedding"
_TELLTALE = (
    f"{_PATCHES}.hidden_layer.weight",
    "blocks.0.slstm_layer.slstm_cell._recurrent_kernel_",
)

_RMS_EPS, _HEAD_NORM_EPS, _F_CLAMP = 1e-6, 1e-5, 15.0
"""Constants of upstream's code: models/slstm/block.py, torch's group_norm, models/slstm/cell.py."""


@dataclass(frozen=True)
class _Reading:
    """One checkpoint while it is read; ``layers`` and ``weights`` are filled in."""

    table: TensorTable
    fields: TiRexFields
    layers: list[tuple[str, Layer]]
    weights: dict[str, Weight]

    def agree(self, name: str, stated: int, key: str, found: int) -> None:
        """Raise CheckpointError unless the hyper-parameter ``name`` is what ``key`` shows."""
        if stated != found:
            raise CheckpointError(
                f"{self.fields.path}: {name} is {stated}, but tensor {key} says {found}; do the "
                "hyper-parameters belong to these weights?"
            )


def detect(source: Source) -> bool:
    """Whether the weights of ``source`` are those of a TiRex, by their names.

    Raises CheckpointError where they cannot be read.
    """
    try:
        files = find_weight_files(source.path)
    except CheckpointError:
        return False  # there are none, or no telling which
    if any(path.suffix not in WEIGHT_SUFFIXES for path in files):
        return False
    try:
        names = read_weight_files(files, source.prefix).tensors
    except ForeignError:
        return False
    return set(_TELLTALE) <= {name.replace(_STACK, "") for name in names}


def read(source: Source) -> Checkpoint:
    """The model in ``source``.

    Raises CheckpointError for missing, damaged, or contradictory files, UnsupportedModelError
    for what upstream has no code for; both name the file and the key.
    """
    files = find_weight_files(source.path)
    stored = read_weight_files(files, source.prefix)
    origin = files[0] if len(files) == 1 else source.path
    tensors = _bare(stored.tensors, origin)
    _refuse_other(tensors, origin)
    fields = read_fields(source, files, stored)
    table = TensorTable(tensors, str(origin))
    reading = _Reading(table, fields, [], {})
    _read_model(reading)
    table.finish()
    spec = _spec(fields, reading.layers)
    used = files if fields.path in files else (fields.path, *files)
    return Checkpoint(spec, reading.weights, used, tensors, fields, stored.left_out, stored.notes)


def _bare(tensors: Weights, origin: Path) -> dict[str, Weight]:
    """``tensors`` under the names of upstream's module."""
    bare = {name.replace(_STACK, ""): weight for name, weight in tensors.items()}
    if len(bare) < len(tensors):
        twice = next(n for n in tensors if _STACK in n and n.replace(_STACK, "") in tensors)
        raise CheckpointError(f"{origin}: tensor {twice} is there without {_STACK} as well")
    return {name: replace(weight, sources=(name,)) for name, weight in bare.items()}


def _refuse_other(names: Collection[str], origin: Path) -> None:
    if not any(name.startswith((_PATCHES, "blocks.")) for name in names):
        raise CheckpointError(
            f"{origin}: is no TiRex: it has no tensor {_TELLTALE[0]}; its tensors start with "
            f"{', '.join(sorted({name.partition('.')[0] for name in names})[:5])}"
        )


def _spec(fields: TiRexFields, layers: list[tuple[str, Layer]]) -> ModelSpec:
    config, context = fields.model_config, fields.train_ctx_len
    count, patch = len(config.quantiles), config.output_patch_size
    return ModelSpec(
        "tirex",
        (TensorInfo("context", "float32", (BATCH, "length")),),
        tuple(layers),
        (TensorInfo("quantiles", "float32", (BATCH, patch, count)),),
        "begun",
        (TensorInfo("quantiles", "float32", (BATCH, "length", count)),),
        ForecastInfo(tuple(config.quantiles), context, patch, patch),
    )


def _read_model(reading: _Reading) -> None:
    table, config = reading.table, reading.fields.model_config
    patch, blocks = config.input_patch_size, config.block_kwargs
    size = table.size(
        "model size", ("out_norm.weight", 0), ("blocks.0.norm_slstm.weight", 0),
        ("blocks.0.norm_ffn.weight", 0), (f"{_PATCHES}.output_layer.weight", 0),
        (f"{_HEAD}.hidden_layer.weight", 1),
    )  # fmt: skip
    at = "model_config.block_kwargs"
    reading.agree(f"{at}.embedding_dim", blocks.embedding_dim, "out_norm.weight", size)
    count = 1 + max(int(m[1]) for n in table.names() if (m := re.match(r"blocks\.(\d+)\.", n)))
    reading.agree(f"{at}.num_blocks", blocks.num_blocks, f"blocks.{count - 1}.*", count)
    reading.layers.append(("scaler", SeriesScaler(reading.fields.train_ctx_len)))
    reading.layers.append(("patches", Patches(patch)))
    key = f"{_PATCHES}.hidden_layer.weight"
    seen = table.size("patch", (key, 1), (f"{_PATCHES}.residual_layer.weight", 1))
    reading.agree("2 * model_config.input_patch_size", 2 * patch, key, seen)
    embedding = _read_mlp(reading, _PATCHES, "patch_embedding", 2 * patch, size)
    reading.layers.append(("patch_embedding", embedding))
    norm = Norm("rms", _RMS_EPS, size)
    for index in range(count):
        _read_block(reading, index, norm)
    reading.layers.append(("out_norm", norm))
    _take_norm(reading, norm, "out_norm", "out_norm.weight")
    levels = tuple(config.quantiles)
    key = f"{_HEAD}.output_layer.weight"
    rows = table.size("output", (key, 0), (f"{_HEAD}.residual_layer.weight", 0))
    name = "len(model_config.quantiles) * model_config.output_patch_size"
    reading.agree(name, len(levels) * patch, key, rows)
    inner = _read_mlp(reading, _HEAD, "head", size, rows)
    reading.layers.append(("head", QuantileHead(inner, levels, patch, "scaler")))


def _read_mlp(reading: _Reading, at: str, path: str, in_size: int, out_size: int) -> ResidualMLP:
    """out(relu(hidden x)) + residual x."""
    key = f"{at}.hidden_layer.weight"
    hidden = reading.table.size(
        "hidden size", (key, 0), (f"{at}.hidden_layer.bias", 0), (f"{at}.output_layer.weight", 1)
    )
    reading.agree(
        "model_config.input_ff_dim", reading.fields.model_config.input_ff_dim, key, hidden
    )
    layer = ResidualMLP(in_size, hidden, out_size, "relu")
    tensors = LayerTensors(reading.table, layer)
    for ours, theirs in (("hidden", "hidden"), ("out", "output"), ("residual", "residual")):
        for leaf in ("weight", "bias"):
            tensors.take(f"{ours}.{leaf}", f"{at}.{theirs}_layer.{leaf}")
    reading.weights.update(placed(path, tensors.weights))
    return layer


def _read_block(reading: _Reading, index: int, norm: Norm) -> None:
    """x + slstm(norm x), then x + ffn(norm x)."""
    at, path = f"blocks.{index}", f"layers.{index}"
    for name, layer, norm_name, norm_key in (
        ("slstm", _read_slstm(reading, at, path, norm.size), "mixer_norm", "norm_slstm"),
        ("ffn", _read_feed_forward(reading, at, path, norm.size), "ffn_norm", "norm_ffn"),
    ):
        _take_norm(reading, norm, f"{path}.{norm_name}", f"{at}.{norm_key}.weight")
        reading.layers.append((f"{path}.{name}", Residual(norm, layer, norm_name)))


def _take_norm(reading: _Reading, norm: Norm, path: str, key: str) -> None:
    tensors = LayerTensors(reading.table, norm)
    tensors.take("weight", key)
    reading.weights.update(placed(path, tensors.weights))


def _read_slstm(reading: _Reading, block: str, path: str, size: int) -> SLSTM:
    """R [N, H(in), 4 H(out)], bias by head, gate, unit; every backend rounds to bfloat16."""
    table, at = reading.table, f"{block}.slstm_layer"
    gates = {
        "input_gate": "fgate", "forget_gate": "igate",
        "cell_input": "zgate", "output_gate": "ogate",
    }  # fmt: skip
    heads = table.size("number of heads", *((f"{at}.{g}.weight", 0) for g in gates.values()))
    name = "model_config.block_kwargs.num_heads"
    reading.agree(
        name, reading.fields.model_config.block_kwargs.num_heads, f"{at}.fgate.weight", heads
    )
    if size % heads:
        raise CheckpointError(
            f"{reading.fields.path}: {name} is {heads}, which does not divide {size}"
        )
    head = size // heads
    layer = SLSTM(heads, head, 0, _HEAD_NORM_EPS, f_clamp=_F_CLAMP, state_rounding=1)
    tensors = LayerTensors(table, layer)
    for name, gate in gates.items():
        tensors.take(f"{name}.weight", f"{at}.{gate}.weight")
    cell = f"{at}.slstm_cell"
    tensors.take(
        "R.weight", f"{cell}._recurrent_kernel_", (heads, head, 4 * head),
        lambda a: a.reshape(heads, head, 4, head),
    )  # fmt: skip
    tensors.take(
        "R.bias", f"{cell}._bias_", (4 * size,),
        lambda a: a.reshape(heads, 4, head).transpose(1, 0, 2),
    )  # fmt: skip
    tensors.take_norm("head_norm.weight", f"{at}.group_norm.weight")
    reading.weights.update(placed(f"{path}.slstm", tensors.weights))
    return layer


def _read_feed_forward(reading: _Reading, block: str, path: str, size: int) -> FeedForward:
    """down(silu(gate x) * up x)."""
    at = f"{block}.ffn"
    names = {"gate": "proj_up_gate", "up": "proj_up", "down": "proj_down"}
    hidden = reading.table.size(
        "feed-forward size", (f"{at}.proj_down.weight", 1), (f"{at}.proj_up_gate.weight", 0),
        (f"{at}.proj_up.weight", 0),
    )  # fmt: skip
    layer = FeedForward(size, hidden, "swish")
    tensors = LayerTensors(reading.table, layer)
    for ours, theirs in names.items():
        tensors.take(f"{ours}.weight", f"{at}.{theirs}.weight")
    reading.weights.update(placed(f"{path}.ffn", tensors.weights))
    return layer
