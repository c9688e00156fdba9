"""``xlstm-export inspect``: what a checkpoint, bundle or engine holds; numbers are not read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xlstm_export import pipeline
from xlstm_export.cli.arguments import (
    ConfigOption,
    FamilyOption,
    JsonOption,
    PrefixOption,
    SourceArgument,
)
from xlstm_export.cli.choices import parse_family
from xlstm_export.cli.console import console, print_json
from xlstm_export.engine.record import ENGINE_SUFFIX, RECORD_SUFFIX
from xlstm_export.errors import BundleError, CheckpointError
from xlstm_export.families.hub import resolve_source
from xlstm_export.model.manifest import DATA_FILE, MANIFEST_FILE, MODEL_FILE

_FOR_THEIR_FOLDER = (MANIFEST_FILE, "config.json", "config.yaml", "config.yml")


def inspect(
    source: SourceArgument,
    family: FamilyOption = "auto",
    config: ConfigOption = None,
    prefix: PrefixOption = "",
    json: JsonOption = False,
) -> None:
    """Describe SOURCE: a checkpoint, a bundle, or an engine file.

    A bundle and an engine are read to the end, to say whether they are still what was written.
    """
    facts = _facts(source, parse_family(family), config, prefix)
    if json:
        print_json(facts.data)
    else:
        _print(facts.words)


def _facts(source: str, family: str, config: Path | None, prefix: str) -> pipeline.Facts:
    """What SOURCE holds, which its name, its place or its content tells the kind of."""
    path = Path(source)
    if path.name in _FOR_THEIR_FOLDER and path.is_file():
        path = path.parent
    if (path / MANIFEST_FILE).is_file():
        return pipeline.inspect_bundle(path)
    if path.name in (MODEL_FILE, DATA_FILE) and (path.parent / MANIFEST_FILE).is_file():
        raise BundleError(f"{path}: is a part of a bundle; give its folder, {path.parent}")
    if path.suffix == ENGINE_SUFFIX or _is_record(path):
        return pipeline.inspect_engine(path)
    if path.suffix == RECORD_SUFFIX and path.is_file():
        raise CheckpointError(
            f"{path}: no record of an engine; give the folder of a checkpoint or bundle instead"
        )
    here = source if path == Path(source) else str(path)  # "org/name" stays as it was typed
    return pipeline.inspect_checkpoint(resolve_source(here, config, prefix), family)


def _is_record(path: Path) -> bool:
    """Whether the .json file ``path`` lies where engines do, or says what their records say."""
    if path.suffix != RECORD_SUFFIX or not path.is_file():
        return False
    lies_there = path.parent.name == "engines" or path.with_suffix(ENGINE_SUFFIX).is_file()
    return lies_there or b'"engine_sha256"' in path.read_bytes()


def _print(words: Mapping[str, str | list[str]]) -> None:
    out = console()
    for key, value in words.items():
        if isinstance(value, list):
            out.print(f"{key}:")
            for line in value:
                out.print(f"  {line}")
        else:
            out.print(f"{key:18} {value}")
