"""Reading a YAML file somebody else wrote: data only, and no more work than its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from xlstm_export.checkpoint.source import read_text
from xlstm_export.errors import CheckpointError

_MOST_ALIASES = 16
"""A configuration has hardly one; a few dozen that name each other stand for 10^9 entries."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that gives up where a file repeats itself by reference too often."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > _MOST_ALIASES:
                raise yaml.YAMLError(f"more than {_MOST_ALIASES} aliases")
        return super().compose_node(parent, index)


def load_yaml(path: Path) -> dict[str, Any]:
    """The fields of ``path``. Raises CheckpointError where there is no such file of fields."""
    text = read_text(path, "YAML")
    try:
        fields = yaml.load(text, _Loader)
    except MemoryError:
        raise
    except Exception as error:  # beside its own errors, whatever "!!int x" or 2020-13-45 raise
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: not a readable YAML file ({reason})") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: holds no fields")
    return {str(name): value for name, value in fields.items()}
