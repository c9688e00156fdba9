"""``xlstm-export inspect``: what a checkpoint, bundle or engine holds; numbers are not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xlstm_export import pipeline
from xlstm_export.cli.arguments import ConfigOption, FamilyOption, JsonOption, SourceArgument
from xlstm_export.cli.choices import parse_family
from xlstm_export.cli.console import console, print_json
from xlstm_export.engine.record import ENGINE_SUFFIX, RECORD_SUFFIX
from xlstm_export.families.hub import resolve_source
from xlstm_export.model.manifest import MANIFEST_FILE


def inspect(
    source: SourceArgument,
    family: FamilyOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Describe SOURCE: a checkpoint, a bundle, or an engine file."""
    family = parse_family(family)
    if Path(source).suffix in (ENGINE_SUFFIX, RECORD_SUFFIX):
        facts = pipeline.inspect_engine(Path(source))
    elif (Path(source) / MANIFEST_FILE).is_file():
        facts = pipeline.inspect_bundle(Path(source))
    else:
        facts = pipeline.inspect_checkpoint(resolve_source(source, config), family)
    if json:
        print_json(facts)
        return
    _print(facts)


def _print(facts: dict[str, Any]) -> None:
    out = console()
    for key, value in facts.items():
        if isinstance(value, list):
            out.print(f"{key}:")
            for line in value:
                out.print(f"  {line}")
        else:
            out.print(f"{key:18} {value}")
