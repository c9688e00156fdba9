"""A configuration as upstream reads it (OmegaConf, then dacite), into dataclasses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import dacite

from xlstm_export.errors import CheckpointError
from xlstm_export.families.extra_fields import refuse_extra_fields
from xlstm_export.families.interpolation import resolve
from xlstm_export.families.sections import block_section

T = TypeVar("T")


def stack_fields(
    document: Mapping[str, Any], origin: str, ignored: Collection[str]
) -> dict[str, Any]:
    """The fields of the block stack in ``document``, references resolved.

    They stand at the top level, under ``model``, or in the only section that has blocks;
    ``ignored`` names are left out at every level. Raises CheckpointError naming ``origin``.
    """
    try:
        path = block_section(document)
        fields: Any = document
        for name in path:
            fields = fields[name]
        kept: dict[str, Any] = _without(ignored, fields)
        return {name: resolve(value, document, (*path, name)) for name, value in kept.items()}
    except RecursionError as error:
        raise CheckpointError(f"{origin}: a field contains itself") from error
    except CheckpointError as error:
        raise CheckpointError(f"{origin}: {error}") from error


def read_fields(fields: Mapping[str, Any], kind: type[T], origin: str) -> T:
    """``fields`` as the dataclass ``kind``.

    Raises CheckpointError naming ``origin`` and the fields that are unknown or of the wrong type.
    """
    try:
        refuse_extra_fields(kind, fields)
        return dacite.from_dict(kind, fields, dacite.Config(type_hooks={float: _number}))
    except (dacite.DaciteError, CheckpointError) as error:
        raise CheckpointError(f"{origin}: {error}") from error


def _without(names: Collection[str], value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(names, e) for name, e in value.items() if name not in names}
    return value


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-1 as text, OmegaConf as a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # dacite names the field
