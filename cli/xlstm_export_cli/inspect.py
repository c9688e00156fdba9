"""``xlstm-export inspect``: what a checkpoint, bundle or engine holds; numbers are not read."""

from __future__ import annotations

from collections.abc import Mapping

import xlstm_export as xe
from xlstm_export_cli.arguments import (
    ConfigOption,
    FamilyOption,
    JsonOption,
    PrefixOption,
    SourceArgument,
)
from xlstm_export_cli.console import console, print_json


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
    facts = xe.inspect(source, family=family, config=config, prefix=prefix)
    if json:
        print_json(facts.data)
    else:
        _print(facts.words)


def _print(words: Mapping[str, str | list[str]]) -> None:
    out = console()
    for key, value in words.items():
        if isinstance(value, list):
            out.print(f"{key}:")
            for line in value:
                out.print(f"  {line}")
        else:
            out.print(f"{key:18} {value}")
