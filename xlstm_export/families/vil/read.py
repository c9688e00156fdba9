"""Vision-LSTM (ViL), versions 1 and 2: a weights file whose tensors show the configuration.

``pixel_values`` [batch, channels, height, width] to ``logits`` [batch, classes], or to
``last_hidden_state`` [batch, patches, D] where there is no head. Source: NX-AI/vision-lstm,
vision_lstm/vision_lstm.py and vision_lstm2.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from xlstm_export.bundle.manifest import TensorInfo
from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.checkpoint.tensor_table import LayerTensors, TensorTable, placed
from xlstm_export.checkpoint.weight_files import read_weight_files
from xlstm_export.errors import BackendUnavailableError, CheckpointError, UnsupportedModelError
from xlstm_export.families.vil.blocks import Blocks, read_blocks, shifted_norm
from xlstm_export.families.vil.images import Images, read_images
from xlstm_export.families.vil.keys import PATCHES, TABLE, Keys, find_keys
from xlstm_export.families.vil.variants import variant
from xlstm_export.model.layer import Layer
from xlstm_export.model.layers.end_pooling import EndPooling
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.spec import BATCH, ModelSpec
from xlstm_export.model.spec import images as pixels
from xlstm_export.model.weights import Weight

_EPS = {1: (1e-5, 1e-6), 2: (1e-6, 1e-5)}
"""Of the norm after the blocks, and of that before the head, by version."""

_MARKS = (f"{PATCHES}.weight", TABLE, ".mlstm_cell.igate.weight")
"""Every Vision-LSTM has tensors whose names end so; no other model has."""


@dataclass(frozen=True)
class VisionFields:
    """What the oracle needs beside the layers; see ``Blocks`` and ``Images``."""

    keys: Keys
    images: Images
    has_biases: bool
    has_norm_biases: bool


def detect(source: Source) -> bool:
    """Whether the weights of ``source`` have patches, their positions, and mLSTM cells."""
    try:
        names = read_weight_files(find_weight_files(source.path), source.prefix).tensors
    except (CheckpointError, BackendUnavailableError):
        return False  # the families that are asked next say it
    return all(any(name.endswith(mark) for name in names) for mark in _MARKS)


def read(source: Source) -> Checkpoint:
    """Structure and lazy tensors of ``source``.

    Raises CheckpointError for what is missing, damaged or contradictory, UnsupportedModelError for
    what upstream does not compute either; both name the file and the tensor.
    """
    files = find_weight_files(source.path)
    stored = read_weight_files(files, source.prefix)
    origin = str(files[0] if len(files) == 1 else source.path)
    table = TensorTable(stored.tensors, origin)
    for key in _MARKS[:2]:
        table.shape(key)  # says so where the model is a part of another
    keys = find_keys(table.names(), origin)
    size = _model_size(table, keys)
    images = read_images(source, files, table, size)
    _check_grid(origin, keys, images)
    has_biases, has_norm_biases = (
        keys.version == 2 and any(name.endswith(end) for name in table.names())
        for end in ("proj_up.bias", "outnorm.bias")
    )
    blocks = Blocks(table, origin, keys, size, images.grid, has_biases, has_norm_biases)
    block_layers, block_weights = read_blocks(blocks)
    end_layers, end_weights = _end(blocks)
    table.finish()
    spec = ModelSpec(
        "vil",
        (pixels(images.patches.channels, images.resolution),),
        (*images.layers, *block_layers, *end_layers),
        (_output(end_layers, images, size),),
        "inner",
    )
    fields = VisionFields(keys, images, has_biases, has_norm_biases)
    configs = () if source.config is None else (source.config,)
    return Checkpoint(
        spec, images.weights | block_weights | end_weights, (*configs, *files), stored.tensors,
        fields, stored.left_out, stored.notes,
        variant(keys.version, size, keys.blocks, images.patches.patch, images.patches.stride),
    )  # fmt: skip


def _model_size(table: TensorTable, keys: Keys) -> int:
    """D, by tensors of every kind that has it, so that a wrong one is not believed."""
    return table.size(
        "model size", (f"{PATCHES}.weight", 0), (f"{PATCHES}.bias", 0), (TABLE, 3),
        (f"{keys.norm_of(0)}.weight", 0), (f"{keys.layer_of(0)}.proj_up.weight", 1),
        (f"{keys.layer_of(0)}.proj_down.weight", 0), (f"{keys.first_norm}.weight", 0),
    )  # fmt: skip


def _check_grid(origin: str, keys: Keys, images: Images) -> None:
    """Upstream's convolution over the grid is for patches that do not overlap."""
    patches = images.patches
    if not keys.is_causal and patches.stride != patches.patch:
        raise UnsupportedModelError(
            f"{origin}: patches of {patches.patch} with stride {patches.stride}: the convolution "
            f"of {keys.convolution_of(0)}.weight is over patches that do not overlap"
        )


def _end(blocks: Blocks) -> tuple[list[tuple[str, Layer]], dict[str, Weight]]:
    """Norm, and for a classifier pooling, norm and head; a norm that is left out is not there."""
    table, keys, size = blocks.table, blocks.keys, blocks.model_size
    layers: list[tuple[str, Layer]] = []
    weights: dict[str, Weight] = {}
    eps = _EPS[keys.version]
    has_head = f"{keys.head}.weight" in table
    required = keys.last_norm if keys.version == 1 else keys.first_norm
    if keys.first_norm == required or f"{keys.first_norm}.weight" in table:
        norm = Norm("layer", eps[0], size)
        layers.append(("out_norm", norm))
        own = shifted_norm(table, norm, keys.first_norm, has_bias=blocks.has_norm_biases)
        weights |= placed("out_norm", own)
    pooled = size
    if has_head:
        shape = table.shape(f"{keys.head}.weight")
        if len(shape) != 2 or shape[1] not in (size, 2 * size):
            raise CheckpointError(
                f"{blocks.origin}: tensor {keys.head}.weight has shape {list(shape)}, expected "
                f"[classes, {size}] or [classes, {2 * size}]"
            )
        width = shape[1]
        pooling = EndPooling("concat" if width == 2 * size else "mean")
        pooled = 2 * size if pooling.joined == "concat" else size
        layers.append(("pooling", pooling))
    if keys.last_norm == required or f"{keys.last_norm}.weight" in table:
        norm = Norm("layer", eps[1], pooled)
        layers.append(("head_norm", norm))
        weights |= placed("head_norm", _taken(table, norm, keys.last_norm))
    if has_head:
        head = LogitHead(table.shape(f"{keys.head}.weight")[0], pooled)
        layers.append(("head", head))
        weights |= placed("head", _taken(table, head, keys.head))
    return layers, weights


def _taken(table: TensorTable, layer: Layer, key: str) -> dict[str, Weight]:
    """Weight and bias of ``layer``, stored as they are below ``key``."""
    tensors = LayerTensors(table, layer)
    for leaf in ("weight", "bias"):
        tensors.take(leaf, f"{key}.{leaf}")
    return tensors.weights


def _output(end: list[tuple[str, Layer]], images: Images, size: int) -> TensorInfo:
    head = end[-1][1]
    if isinstance(head, LogitHead):
        return TensorInfo("logits", "float32", (BATCH, head.vocab_size))
    return TensorInfo("last_hidden_state", "float32", (BATCH, images.positions.positions, size))
