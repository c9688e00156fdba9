"""``transformers`` xLSTMForCausalLM and xLSTMModel: config.json with model_type xlstm, and weights.

An xLSTMModel, saved without the head of the language model, yields hidden states.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlstm_export.checkpoint.json_file import load_json
from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.checkpoint.source import Checkpoint, Source
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
from xlstm_export.families.sections import block_sections
from xlstm_export.model.layers.mlstm import MLSTM
from xlstm_export.model.layers.token_embedding import TokenEmbedding

_BACKBONE = "backbone."
_EMBEDDING = "embeddings.weight"

_CLASSES = {"xLSTMForCausalLM", "xLSTMModel"}


@dataclass(frozen=True, kw_only=True)
class _JsonFields(LargeFields):
    """Names that only xLSTMConfig has; embedding_dim and num_blocks win where both are stated."""

    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    tie_word_embeddings: bool = False
    bos_token_id: Any = None
    force_bos_token_insert: Any = None


def detect(source: Source) -> bool:
    """Whether the configuration of ``source`` says model_type xlstm, and is no block stack's.

    Raises CheckpointError where it is a JSON file that cannot be read.
    """
    path = config_file(source, "config.json")
    if path.suffix != ".json" or not path.is_file():
        return False
    values = load_json(path)
    if block_sections(values):  # wrapped for transformers, under the same model_type
        return False
    classes = values.get("architectures")
    is_named = isinstance(classes, list) and not _CLASSES.isdisjoint(map(str, classes))
    return is_named or values.get("model_type") == "xlstm"


def read(source: Source) -> Checkpoint:
    """The model in ``source``.

    Raises CheckpointError for missing, damaged, or contradictory files, UnsupportedModelError
    for options with other maths.
    """
    config = config_file(source, "config.json")
    fields, origin = _read_fields(config), str(config)
    files = find_weight_files(source.path)
    stored = read_weight_files(files, source.prefix)
    table = TensorTable(stored.tensors, str(source.path))
    is_bare = _EMBEDDING in table and f"{_BACKBONE}{_EMBEDDING}" not in table
    prefix = "" if is_bare else _BACKBONE
    if not is_bare:
        _require_language_model(source.path, table, fields.tie_word_embeddings)
    # transformers ignores add_out_norm, and use_bias for this norm
    layout = LargeLayout(
        family="hf",
        embedding=f"{prefix}{_EMBEDDING}",
        has_out_norm=True,
        out_norm_bias=False,
        tied_without_head=fields.tie_word_embeddings,
        prefix=prefix,
        has_head=not is_bare,
    )
    spec, weights = read_model(table, fields, layout, origin)
    table.finish()
    if fields.embedding_dim is None:
        size = spec.layers_of(TokenEmbedding)[0].model_size
        refuse_contradiction(origin, "hidden_size", fields.hidden_size, size)
    if fields.num_blocks is None:
        stated = fields.num_hidden_layers
        refuse_contradiction(origin, "num_hidden_layers", stated, len(spec.layers_of(MLSTM)))
    notes = stored.notes if is_bare else (*stored.notes, *_note_on_begin(config, fields))
    return Checkpoint(
        spec, weights, (config, *files), stored.tensors, fields, stored.left_out, notes
    )


def _note_on_begin(config: Path, fields: _JsonFields) -> tuple[str, ...]:
    """What the configuration says of an id in front of every text, where it leaves that open."""
    begin = fields.bos_token_id
    if not isinstance(begin, int) or fields.force_bos_token_insert is not None:
        return ()
    return (
        f"{config.name} has bos_token_id {begin} and does not say whether texts begin with it "
        "(force_bos_token_insert): run puts it in front with --bos alone; inputs of a comparison "
        "are drawn at random, without it",
    )


def _read_fields(path: Path) -> _JsonFields:
    """Other fields are normal in config.json, released ones hold many dead ones."""
    values = load_json(path)
    if block_sections(values):
        raise CheckpointError(f"{path}: has the fields of a block stack; give --family block_stack")
    refuse_qk_norm(values, str(path))
    if values.get("quantization_config"):
        raise UnsupportedModelError(f"{path}: quantized weights (quantization_config)")
    return parse_fields(_JsonFields, values, str(path), strict=False)


def _require_language_model(path: Path, table: TensorTable, tied: bool) -> None:
    # raises where all names are wrapped, which says more than a lost head
    table.shape(f"{_BACKBONE}{_EMBEDDING}")
    if "lm_head.weight" not in table and not tied:
        raise CheckpointError(
            f"{path}: tensor lm_head.weight is missing, and the configuration does not say "
            "tie_word_embeddings: true"
        )
