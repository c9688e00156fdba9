"""Configuration of an xLSTMLarge: config.yaml, or an entry beside the tensors of the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlstm_export.checkpoint.source import Source
from xlstm_export.checkpoint.weight_files import StoredTensors
from xlstm_export.checkpoint.yaml_file import load_yaml
from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.families.inner_config import (
    has_inner_config,
    inner_documents,
    note_on_origin,
    notes_on_others,
    only_document,
    section_at,
)
from xlstm_export.families.large.fields import (
    LargeFields,
    config_file,
    parse_fields,
    refuse_qk_norm,
)
from xlstm_export.families.sections import block_sections, sections

_REQUIRED = ("embedding_dim", "num_heads", "num_blocks", "vocab_size")

_TELLTALE_FIELDS = {"num_heads", "qk_dim_factor", "gate_soft_cap", "weight_mode", "step_kernel"}
_BLOCK_STACK_FIELDS = {"mlstm_block", "slstm_block", "slstm_at", "context_length", "model"}
_HF_FIELDS = {"hidden_size", "model_type"}


@dataclass(frozen=True, kw_only=True)
class YamlFields(LargeFields):
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


@dataclass(frozen=True)
class Found:
    """A configuration; where it has no file of its own, ``origin`` is an entry of the weights'."""

    fields: YamlFields
    origin: str
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def detect(source: Source) -> bool:
    """Whether the configuration of ``source`` has the fields of xLSTMLargeConfig.

    Raises CheckpointError where it is a YAML file that cannot be read.
    """
    if _has_config_file(source):
        return True
    return source.config is None and has_inner_config(source, _large_sections)


def configuration(source: Source, stored: StoredTensors) -> Found:
    """The configuration of ``source``: in a file, or else in its weights, which are ``stored``.

    Raises CheckpointError for a faulty one and where there is none, UnsupportedModelError for
    options with other maths.
    """
    documents = inner_documents(stored, _large_sections)
    path = config_file(source, "config.yaml")
    inner = None if source.config or _has_config_file(source) else documents
    if inner and (document := only_document(inner, _large_sections)):
        fields, _ = _parse(document.fields, document.origin)
        return Found(fields, document.origin, (), (note_on_origin(document),))
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such configuration; an xLSTMLarge folder has config.yaml"
        )
    values = load_yaml(path)
    fields = _parse_section(values, str(path))
    notes = notes_on_others(path, fields, values.keys(), documents, _parse)
    return Found(fields, str(path), (path,), notes)


def _has_config_file(source: Source) -> bool:
    path = config_file(source, "config.yaml")
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    values = load_yaml(path)
    names = values.keys()
    if block_sections(values):
        return False
    return not _BLOCK_STACK_FIELDS & names and bool(_TELLTALE_FIELDS & names)


def _large_sections(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Paths of the sections with the sizes of an xLSTMLarge, and nothing of another family."""
    other = _BLOCK_STACK_FIELDS | _HF_FIELDS
    return sections(document, lambda f: f.keys() >= set(_REQUIRED) and not other & f.keys())


def _parse(document: Mapping[str, Any], origin: str) -> tuple[YamlFields, Collection[str]]:
    """The only section of ``document``, and the names that stand there."""
    paths = _large_sections(document)
    if len(paths) > 1:
        names = ", ".join(".".join(path) or "the top level" for path in paths)
        raise CheckpointError(
            f"{origin}: the fields of an xLSTMLarge stand in several places ({names}); write "
            "those of the one to be exported into config.yaml, and name it with --config"
        )
    section = section_at(document, paths[0])
    return _parse_section(section, origin), section.keys()


def _parse_section(values: Mapping[str, Any], origin: str) -> YamlFields:
    refuse_qk_norm(values, origin)
    fields = parse_fields(YamlFields, values, origin, strict=True)
    _refuse_other_maths(fields, origin)
    missing = [name for name in _REQUIRED if getattr(fields, name) is None]
    if missing:
        raise CheckpointError(f"{origin}: missing fields: {', '.join(missing)}")
    return fields


def _refuse_other_maths(fields: YamlFields, origin: str) -> None:
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
                f"{origin}: {name}: {stated} is not supported (supported: {computed})"
            )


def _number(value: Any) -> Any:
    """YAML reads 1e-6 as text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
