"""A YAML configuration as upstream reads it (OmegaConf, then dacite), into dataclasses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import dacite

from xlstm_export.checkpoint.yaml_file import load_yaml
from xlstm_export.errors import CheckpointError

T = TypeVar("T")


def read_yaml(path: Path, kind: type[T], section: str, ignored: Collection[str]) -> T:
    """The fields in ``path`` as the dataclass ``kind``.

    They stand at the top level, or under ``section`` where there is one; ``ignored`` names are
    left out at every level. Raises CheckpointError naming the field that is unknown, of the
    wrong type, or refers to nothing.
    """
    document = load_yaml(path)
    try:
        fields = _resolve(document.get(section, document), document, ignored)
        if not isinstance(fields, dict):
            raise CheckpointError(f"{section} holds no fields")
        config = dacite.Config(strict=True, type_hooks={float: _number})
        return dacite.from_dict(kind, fields, config)
    except dacite.UnexpectedDataError as error:
        names = ", ".join(sorted(map(str, error.keys)))
        raise CheckpointError(f"{path}: unknown fields: {names}; remove or correct them") from error
    except RecursionError as error:
        raise CheckpointError(f"{path}: a field contains itself") from error
    except (dacite.DaciteError, CheckpointError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _resolve(
    value: Any, document: Mapping[str, Any], ignored: Collection[str], depth: int = 0
) -> Any:
    """``value`` with OmegaConf's ``${a.b}`` replaced by what stands there in ``document``."""
    if isinstance(value, dict):
        kept = {name: entry for name, entry in value.items() if name not in ignored}
        return {name: _resolve(entry, document, ignored) for name, entry in kept.items()}
    if isinstance(value, list):
        return [_resolve(entry, document, ignored) for entry in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    target: Any = document
    for name in value.removeprefix("${").removesuffix("}").split("."):
        target = target.get(name) if isinstance(target, dict) else None
    if target is None or isinstance(target, (dict, list)) or depth > 8:
        raise CheckpointError(f"cannot resolve {value}; write the value itself")
    return _resolve(target, document, ignored, depth + 1)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-1 as text, OmegaConf as a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # dacite names the field
