"""Where a block stack's configuration is: in a file, or beside the tensors of its weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.checkpoint.source import Source, read_text
from xlstm_export.checkpoint.weight_files import (
    WEIGHT_SUFFIXES,
    StoredTensors,
    read_weight_files,
)
from xlstm_export.errors import CheckpointError
from xlstm_export.families.block_stack.config import StackConfig, parse_config, read_config
from xlstm_export.families.inner_config import (
    has_inner_config,
    inner_documents,
    note_on_origin,
    notes_on_others,
    only_document,
)
from xlstm_export.families.sections import block_sections

STACK_PREFIX = "xlstm_block_stack."
"""Where xLSTMLMModel keeps its stack; the keys of a bare stack start without it."""

FIRST_NORM = "blocks.0.xlstm_norm.weight"
"""Every block stack has this tensor; nothing else does."""

_NAMES = ("config.yaml", "config.yml", "config.json")
"""JSON is what a wrapper for transformers writes, the fields in a section of it."""

_FIELD = re.compile(r"""\b(mlstm_block|slstm_block)["']?\s*:""")


@dataclass(frozen=True)
class Found:
    """A configuration; where it has no file of its own, ``origin`` is an entry of the weights'."""

    config: StackConfig
    stated: frozenset[str]
    """Dotted names of the fields that stand there."""
    origin: str
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def detect(source: Source) -> bool:
    """Whether ``source`` has a block stack's configuration, or a weight file with its keys.

    Raises CheckpointError where the file that tells cannot be read.
    """
    config = _config_file(source)
    if config is not None and _names_blocks(config):
        return True
    if source.path.suffix in WEIGHT_SUFFIXES and source.path.is_file():
        return _outer_prefix(source) is not None
    return source.config is None and has_inner_config(source, block_sections)


def configuration(source: Source, stored: StoredTensors) -> Found:
    """The configuration of ``source``: in a file, or else in its weights, which are ``stored``.

    A YAML file without blocks is read last, for the error that says so. Raises CheckpointError
    for a faulty one and where there is none.
    """
    documents = inner_documents(stored, block_sections)
    path = _config_file(source)
    is_meant = path is not None and (path == source.config or _names_blocks(path))
    if not is_meant and (inner := only_document(documents, block_sections)):
        config, stated = parse_config(inner.fields, inner.origin)
        return Found(config, stated, inner.origin, (), (note_on_origin(inner),))
    if path is None:
        raise _missing(source)
    config, stated = read_config(path)
    notes = notes_on_others(path, config, stated, documents, parse_config)
    return Found(config, stated, str(path), (path,), notes)


def _config_file(source: Source) -> Path | None:
    """The file given, or that beside the weights which has the fields, or a YAML one at least."""
    if source.config is not None:
        return source.config
    folder = source.path if source.path.is_dir() else source.path.parent
    there = [p for name in _NAMES if (p := folder / name).is_file()]
    fallback = (p for p in there if p.suffix != ".json")
    return next(filter(_names_blocks, there), None) or next(fallback, None)


def _names_blocks(config: Path) -> bool:
    return bool(_FIELD.search(read_text(config, "YAML")))


def _missing(source: Source) -> CheckpointError:
    prefix = _outer_prefix(source)
    also = f"; its tensors start with {prefix}: give --prefix {prefix} too" if prefix else ""
    return CheckpointError(
        f"{source.path}: its configuration is missing; put {_NAMES[0]} beside the weights or name "
        f"it with --config{also}"
    )


def _outer_prefix(source: Source) -> str | None:
    """What the names of the model start with in the weights file; None where there is no model."""
    names = read_weight_files(find_weight_files(source.path), source.prefix).tensors
    ends = (name.removesuffix(FIRST_NORM) for name in names if name.endswith(FIRST_NORM))
    start = next((start for start in ends if not start or start.endswith(".")), None)
    return None if start is None else start.removesuffix(STACK_PREFIX)
