"""Reading a JSON file somebody else wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xlstm_export.checkpoint.source import read_text
from xlstm_export.errors import CheckpointError


def load_json(path: Path) -> dict[str, Any]:
    """The fields of ``path``. Raises CheckpointError where there is no such file of fields."""
    text = read_text(path, "JSON")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, or too deep
        raise CheckpointError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds no fields")
    return values
