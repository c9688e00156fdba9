"""The recipes' scripts, imported as they import each other: by name, from their own folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def script(folder: str, name: str) -> Any:
    """The module ``name`` of ``recipes/folder``."""
    sys.path.insert(0, str(RECIPES / folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(RECIPES / folder))
