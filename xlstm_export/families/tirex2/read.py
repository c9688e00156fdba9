"""TiRex-2 (tirex-2 0.4.0): config.json and model.safetensors, or model-config.yaml and model.ckpt.

Several series are forecast at once, with covariates; see ``model.variates`` for what goes in.
"""

from __future__ import annotations

import re

from xlstm_export.bundle.manifest import ForecastInfo
from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.checkpoint.tensor_table import LayerTensors, TensorTable, placed
from xlstm_export.checkpoint.weight_files import read_weight_files
from xlstm_export.errors import BackendUnavailableError, CheckpointError
from xlstm_export.families.tirex2.aliases import without_aliases
from xlstm_export.families.tirex2.blocks import VARIATES, BlockReader, Part
from xlstm_export.families.tirex2.config import Config, config_file, load_fields, read_config
from xlstm_export.model.layer import Layer
from xlstm_export.model.layers.arcsinh_scaler import ArcsinhScaler
from xlstm_export.model.layers.calibrated_bands import Band, CalibratedBands
from xlstm_export.model.layers.differenced_trends import DifferencedTrends
from xlstm_export.model.layers.forecast_window import ForecastWindow
from xlstm_export.model.layers.joined_variates import JoinedVariates
from xlstm_export.model.layers.mirrored import Mirrored
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.patches import Patches
from xlstm_export.model.layers.residual_mlp import ResidualMLP
from xlstm_export.model.layers.variate_quantiles import VariateQuantiles
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.variates import variate_inputs, variate_quantiles

_LIMIT = 20.0
"""Beyond it upstream takes no sinh."""
_BAND = Band(spread=0.90**0.5, growth=0.52 - 0.5)
_STEP_BAND = Band(spread=1.68**0.5, growth=0.51 - 0.5)
_LEAST_RISE, _LEAST_R2 = 1.5, 0.87
"""Constants of upstream's postprocessor, which no configuration states."""
_TREND = "trend"


def detect(source: Source) -> bool:
    """Whether the configuration of ``source`` has a TiRex-2's stack of blocks, or its weights have.

    Raises CheckpointError where the configuration cannot be read.
    """
    path = config_file(source)
    if not path.is_file():
        return _has_blocks(source)
    if path.suffix not in (".json", ".yaml", ".yml"):
        return False
    stack = load_fields(path).get("stack_config")
    return isinstance(stack, dict) and "recipe" in stack


def read(source: Source) -> Checkpoint:
    """The model in ``source``.

    Raises CheckpointError for missing, damaged or contradictory files, UnsupportedModelError for
    options that are not lowered.
    """
    config = read_config(config_file(source))
    files = find_weight_files(source.path)
    stored = read_weight_files(files, source.prefix)
    tensors = without_aliases(stored.tensors)
    table = TensorTable(tensors, str(source.path))
    _refuse_first_tirex(table, source)
    _check_block_count(config, table)
    blocks = BlockReader(config, table)
    parts = [
        *_front(config, table),
        *(part for index in range(config.num_blocks) for part in blocks.read(index)),
        *_end(config, table),
    ]
    table.finish()
    layers: tuple[tuple[str, Layer], ...] = tuple((path, layer) for path, layer, _ in parts)
    if config.tta_sign_flip:
        layers = (("mirrored", Mirrored(layers, config.opposites())),)
    spec = ModelSpec(
        "tirex2",
        variate_inputs(),
        layers,
        (variate_quantiles(len(config.quantiles)),),
        recurrence="inner",
        forecast=ForecastInfo(
            tuple(config.quantiles), config.context_len, config.input_patch_size, config.future_len
        ),
    )
    weights = {name: weight for _, _, own in parts for name, weight in own.items()}
    once = {weight.sources[0]: weight for weight in tensors.values()}
    return Checkpoint(
        spec, weights, (config.path, *files), once, config, stored.left_out, stored.notes
    )


def _has_blocks(source: Source) -> bool:
    try:
        names = read_weight_files(find_weight_files(source.path), source.prefix).tensors
    except (CheckpointError, BackendUnavailableError):
        return False
    return any(".time_mixer." in name for name in names)


def _front(config: Config, table: TensorTable) -> list[Part]:
    """From series to embedded patches."""
    patch, scaler = config.input_patch_size, config.scaler_cfg
    left_pad = -(config.context_len + config.future_len) % patch
    joined = JoinedVariates(config.context_len, config.future_len, left_pad)
    embedding = ResidualMLP(2 * patch, config.input_ff_dim, config.embedding_dim, config.activation)
    trends: list[Part] = (
        [(_TREND, DifferencedTrends(_LEAST_RISE, _LEAST_R2), {})] if config.tta_diff else []
    )
    return [
        *trends,
        (VARIATES, joined, {}),
        ("scaler", ArcsinhScaler(scaler.eps, scaler.use_arcsinh, scaler.binaryaware), {}),
        ("patches", Patches(patch), {}),
        _residual_mlp(config, table, embedding, "input_patch_embedding", "embedding"),
    ]


def _end(config: Config, table: TensorTable) -> list[Part]:
    """From the last block's vectors to quantiles."""
    size, patch, count = config.embedding_dim, config.output_patch_size, len(config.quantiles)
    parts: list[Part] = [("window", ForecastWindow(config.future_len // patch), {})]
    if config.stack_out_norm_config is not None:
        norm = Norm("rms", config.stack_out_norm_config.eps, size)
        tensors = LayerTensors(table, norm)
        tensors.take("weight", "stack_out_norm.weight")
        parts.append(("out_norm", norm, placed("out_norm", tensors.weights)))
    head = ResidualMLP(size, int(size * config.h_expand), count * patch, config.activation)
    parts.append(_residual_mlp(config, table, head, "output_patch_embedding", "head"))
    quantiles = VariateQuantiles(
        count, patch, "scaler", config.scaler_cfg.use_arcsinh, config.scaler_cfg.binaryaware, _LIMIT
    )
    trend = _TREND if config.tta_diff else ""
    bands = CalibratedBands(count, config.future_len, _BAND, _STEP_BAND, trend)
    return [*parts, ("quantiles", quantiles, {}), ("bands", bands, {})]


def _residual_mlp(config: Config, table: TensorTable, layer: ResidualMLP, at: str, to: str) -> Part:
    stated = "input_ff_dim" if to == "embedding" else "embedding_dim * h_expand"
    key = f"{at}.hidden_layer.weight"
    shape = table.shape(key)
    config.agree(stated, layer.hidden_size, key, shape[0] if shape else 0)
    tensors = LayerTensors(table, layer)
    for name in ("hidden", "residual"):
        tensors.take(f"{name}.weight", f"{at}.{name}_layer.weight")
        tensors.take(f"{name}.bias", f"{at}.{name}_layer.bias")
    for leaf in ("weight", "bias"):
        tensors.take(f"out.{leaf}", f"{at}.output_layer.{leaf}")
    return to, layer, placed(to, tensors.weights)


def _refuse_first_tirex(table: TensorTable, source: Source) -> None:
    if any(".slstm_layer." in name for name in table.names()):
        raise CheckpointError(
            f"{source.path}: holds the tensors of the first TiRex, where a TiRex-2 has "
            "stack.0.time_mixer and others; give --family tirex"
        )


def _check_block_count(config: Config, table: TensorTable) -> None:
    numbers = {int(m[1]) for m in (re.match(r"stack\.(\d+)\.", n) for n in table.names()) if m}
    if numbers and max(numbers) + 1 != config.num_blocks:
        raise config.error(
            f"num_blocks is {config.num_blocks}, but the weights have stack.{max(numbers)}"
        )
