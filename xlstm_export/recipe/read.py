"""Reading recipes: strictly, so that a slip in a data file is an error and no silent default."""

from __future__ import annotations

from pathlib import Path

import dacite

from xlstm_export.checkpoint.yaml_file import load_yaml
from xlstm_export.errors import CheckpointError, OptionError
from xlstm_export.recipe.recipe import Recipe

_FOLDER = Path(__file__).parent


def recipes() -> dict[str, Recipe]:
    """Every recipe by its name, in alphabetical order. Raises CheckpointError for a damaged one."""
    names = sorted(path.stem for path in _FOLDER.glob("*.yaml"))
    return {name: read_recipe(_FOLDER / f"{name}.yaml") for name in names}


def find_recipe(name: str) -> Recipe:
    """The recipe ``name``.

    Raises OptionError, which lists the names, where there is none, CheckpointError for a damaged
    one.
    """
    known = recipes()
    if name not in known:
        raise OptionError("recipe", f"{name} is not one of {', '.join(known)}")
    return known[name]


def read_recipe(path: Path) -> Recipe:
    """The recipe in the YAML file ``path``, named as the file.

    Raises CheckpointError for a field that is unknown, missing, or of the wrong type.
    """
    fields = {"name": path.stem, **load_yaml(path)}
    try:
        return dacite.from_dict(Recipe, fields, dacite.Config(strict=True, cast=[tuple]))
    except (dacite.DaciteError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
