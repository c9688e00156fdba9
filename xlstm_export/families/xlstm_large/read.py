"""``xlstm.xlstm_large.xLSTMLarge``: config.yaml and one or many safetensors files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.checkpoint.tensor_table import TensorTable
from xlstm_export.checkpoint.weight_files import read_weight_files
from xlstm_export.checkpoint.yaml_file import load_yaml
from xlstm_export.errors import CheckpointError, UnsupportedModelError
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

_REQUIRED = ("embedding_dim", "num_heads", "num_blocks", "vocab_size")

_TELLTALE_FIELDS = {"num_heads", "qk_dim_factor", "gate_soft_cap", "weight_mode", "step_kernel"}
_BLOCK_STACK_FIELDS = {"mlstm_block", "slstm_block", "slstm_at", "context_length", "model"}


@dataclass(frozen=True, kw_only=True)
class _YamlFields(LargeFields):
    """The rest of xLSTMLargeConfig: sizes that the tensors tell, and how upstream computes."""

    norm_reduction_force_float32: bool = True
    qk_dim_factor: float = 0.5
    v_dim_factor: float = 1.0
    mode: str = "train"
    chunk_size: int = 64
    return_last_states: bool = False
    autocast_kernel_dtype: str = "bfloat16"
    inference_state_dtype: str = "float32"
    ffn_proj_factor: float = 2.6667
    ffn_round_up_to_multiple_of: int = 64
    weight_mode: str = "single"
    # of older versions: how kernels computed, what training dropped, and sizes by another name
    add_forward_backend_padding: bool = False
    add_embedding_dropout: bool = False
    forward_backend_name: str = ""
    step_backend_name: str = ""
    mlstm_backend: str | dict[str, Any] | None = None
    mlstm_round_up_to_multiple_of: int = 64
    igate_bias_init_range: float = -10.0
    head_dim: int | None = None
    # and what would be other maths, where it is not what every version computes
    add_post_norm: bool = False
    add_post_blocks_norm: bool | None = None
    cell_norm_eps: float | None = None


def detect(source: Source) -> bool:
    """Whether the configuration of ``source`` has the fields of xLSTMLargeConfig.

    Raises CheckpointError where it is a YAML file that cannot be read.
    """
    path = config_file(source, "config.yaml")
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    values = load_yaml(path)
    names = values.keys()
    if block_sections(values):
        return False
    return not _BLOCK_STACK_FIELDS & names and bool(_TELLTALE_FIELDS & names)


def read(source: Source) -> Checkpoint:
    """The model in ``source``.

    Raises CheckpointError for missing, damaged, or contradictory files, UnsupportedModelError
    for options with other maths.
    """
    config = config_file(source, "config.yaml")
    fields = _read_fields(config)
    files = find_weight_files(source.path)
    stored = read_weight_files(files, source.prefix)
    table = TensorTable(stored.tensors, str(source.path))
    layout = LargeLayout(
        family="xlstm_large",
        embedding="embedding.weight",
        has_out_norm=fields.add_out_norm,
        out_norm_bias=fields.use_bias,
        tied_without_head=False,
    )
    spec, weights = read_model(table, fields, layout, config)
    table.finish()
    refuse_contradiction(config, "head_dim", fields.head_dim, spec.layers_of(MLSTM)[0].cell.v_size)
    return Checkpoint(
        spec, weights, (config, *files), stored.tensors, fields, stored.left_out, stored.notes
    )


def _read_fields(path: Path) -> _YamlFields:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such configuration; an xLSTMLarge folder has config.yaml"
        )
    values = load_yaml(path)
    refuse_qk_norm(values, path)
    fields = parse_fields(_YamlFields, values, path, strict=True)
    _refuse_other_maths(fields, path)
    missing = [name for name in _REQUIRED if getattr(fields, name) is None]
    if missing:
        raise CheckpointError(f"{path}: missing fields: {', '.join(missing)}")
    return fields


def _refuse_other_maths(fields: _YamlFields, path: Path) -> None:
    """Options of older versions, where they are not what is computed today."""
    backend = fields.mlstm_backend if isinstance(fields.mlstm_backend, dict) else {}
    out_norm, cell_eps = fields.add_post_blocks_norm, fields.cell_norm_eps
    wanted = {
        "add_post_norm": (fields.add_post_norm, False),
        "add_post_blocks_norm": (out_norm, fields.add_out_norm if out_norm is not None else None),
        "cell_norm_eps": (cell_eps, fields.norm_eps if cell_eps is not None else None),
        "mlstm_backend.eps": (_number(backend.get("eps", fields.eps)), fields.eps),
    }
    for name, (stated, computed) in wanted.items():
        if stated != computed:
            raise UnsupportedModelError(
                f"{path}: {name}: {stated} is not supported (supported: {computed})"
            )


def _number(value: Any) -> Any:
    """YAML reads 1e-6 as text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
