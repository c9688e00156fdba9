"""``transformers`` xLSTMForCausalLM: config.json with model_type xlstm, and weight files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlstm_export.checkpoint.source import Checkpoint, Source, read_text
from xlstm_export.checkpoint.tensor_table import TensorTable
from xlstm_export.checkpoint.weight_files import read_weight_files
from xlstm_export.errors import (
    CheckpointError,
    UnsupportedModelError,
)
from xlstm_export.families.large.blocks import LargeLayout, read_model
from xlstm_export.families.large.fields import (
    LargeFields,
    config_file,
    parse_fields,
    refuse_contradiction,
    refuse_qk_norm,
)
from xlstm_export.families.oracle import Oracle, unavailable
from xlstm_export.model.layers.mlstm import MLSTM
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.model.storage import Storage

# in the order in which transformers looks for them
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.\w+$")

_EMBEDDING = "backbone.embeddings.weight"


@dataclass(frozen=True, kw_only=True)
class _JsonFields(LargeFields):
    """Names that only xLSTMConfig has; embedding_dim and num_blocks win where both are stated."""

    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    tie_word_embeddings: bool = False


def detect(source: Source) -> bool:
    """Whether the configuration of ``source`` says model_type xlstm.

    Raises CheckpointError where it is a JSON file that cannot be read.
    """
    path = config_file(source, "config.json")
    if path.suffix != ".json" or not path.is_file():
        return False
    values = _read_json(path)
    classes = values.get("architectures")
    is_named = isinstance(classes, list) and "xLSTMForCausalLM" in classes
    return is_named or values.get("model_type") == "xlstm"


def read(source: Source) -> Checkpoint:
    """The model in ``source``.

    Raises CheckpointError for missing, damaged, or contradictory files, UnsupportedModelError
    for options with other maths.
    """
    config = config_file(source, "config.json")
    fields = _read_fields(config)
    files = _weight_files(source.path)
    stored = read_weight_files(files, source.prefix)
    table = TensorTable(stored.tensors, str(source.path))
    _require_language_model(source.path, table, fields.tie_word_embeddings)
    # transformers ignores add_out_norm, and use_bias for this norm
    layout = LargeLayout(
        family="hf",
        embedding=_EMBEDDING,
        has_out_norm=True,
        out_norm_bias=False,
        tied_without_head=fields.tie_word_embeddings,
    )
    spec, weights = read_model(table, fields, layout, config)
    table.finish()
    if fields.embedding_dim is None:
        size = spec.layers_of(TokenEmbedding)[0].model_size
        refuse_contradiction(config, "hidden_size", fields.hidden_size, size)
    if fields.num_blocks is None:
        stated = fields.num_hidden_layers
        refuse_contradiction(config, "num_hidden_layers", stated, len(spec.layers_of(MLSTM)))
    return Checkpoint(
        spec, weights, (config, *files), stored.tensors, fields, stored.left_out, stored.notes
    )


def oracle(checkpoint: Checkpoint, storage: Storage) -> Oracle:
    """Upstream's module in float64, on the checkpoint's numbers as ``storage`` leaves them.

    Raises BackendUnavailableError where torch or an upstream package is missing.
    """
    try:
        from xlstm_export.families.hf.oracle import build

        return build(checkpoint, storage)  # upstream imports as it goes
    except ImportError as error:
        raise unavailable(error) from error


def _read_json(path: Path) -> dict[str, Any]:
    text = read_text(path, "JSON")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, or too deep
        raise CheckpointError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds no fields")
    return values


def _read_fields(path: Path) -> _JsonFields:
    """Other fields are normal in config.json, released ones hold many dead ones."""
    values = _read_json(path)
    refuse_qk_norm(values, path)
    if values.get("quantization_config"):
        raise UnsupportedModelError(f"{path}: quantized weights (quantization_config)")
    return parse_fields(_JsonFields, values, path, strict=False)


def _weight_files(path: Path) -> tuple[Path, ...]:
    """One file, or the shards an index lists; or the file itself."""
    if not path.is_dir():
        shard = _SHARD.search(path.name)
        if shard and int(shard[1]) > 1:
            raise CheckpointError(
                f"{path}: is one of {int(shard[1])} shards; give their folder instead"
            )
        return (path,)
    for name in _WEIGHT_FILES:
        whole, index = path / name, path / f"{name}.index.json"
        if whole.exists():
            return (whole,)
        if index.exists():
            return _shards(index)
    raise CheckpointError(
        f"{path}: no model.safetensors, model.safetensors.index.json, or pytorch_model.bin"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    places = _read_json(index).get("weight_map")
    if not (
        isinstance(places, dict) and places and all(isinstance(p, str) for p in places.values())
    ):
        raise CheckpointError(f"{index}: no weight_map of tensor to file")
    files = []
    for name in sorted(set(places.values())):
        if Path(name).name != name or not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: lists {name}, which is not in its folder; download it")
        files.append(index.parent / name)
    return tuple(files)


def _require_language_model(path: Path, table: TensorTable, tied: bool) -> None:
    if "embeddings.weight" in table and _EMBEDDING not in table:
        raise UnsupportedModelError(
            f"{path}: holds an xLSTMModel without a language-model head; "
            "save the whole xLSTMForCausalLM"
        )
    table.shape(_EMBEDDING)  # raises where all names are wrapped, which says more than a lost head
    if "lm_head.weight" not in table and not tied:
        raise CheckpointError(
            f"{path}: tensor lm_head.weight is missing, and the configuration does not say "
            "tie_word_embeddings: true"
        )
