"""``xlstm-export recipes``: the published models that are known, and how to export each."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.table import Table

import xlstm_export as xe
from xlstm_export_cli.arguments import JsonOption
from xlstm_export_cli.console import console, print_json


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this one in full.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List published models and how to export them."""
    known = xe.recipes() if name is None else {name: xe.find_recipe(name)}
    if json:
        entries = [{**dataclasses.asdict(r), "commands": r.commands} for r in known.values()]
        print_json(entries if name is None else entries[0])
    elif name is None:
        _print_all(known)
    else:
        _print_one(known[name])


def _print_all(known: dict[str, xe.Recipe]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("name", "family", "model"):
        table.add_column(title)
    for recipe in known.values():
        table.add_row(recipe.name, recipe.family, recipe.title)
    out = console()
    out.print(table)
    out.print("one in full: xlstm-export recipes NAME")


def _print_one(recipe: xe.Recipe) -> None:
    out = console()
    sizes = ", ".join(f"{name} {size}" for name, size in recipe.sizes.items())
    options = ", ".join(f"{name} {value}" for name, value in recipe.export.items())
    for title, value in (
        ("name", recipe.name), ("model", recipe.title), ("source", recipe.source),
        ("family", recipe.family), ("licence", recipe.licence), ("sizes", sizes),
        ("export options", options),
    ):  # fmt: skip
        if value:
            out.print(f"{title:18} {value}")
    for title, lines in (
        ("notes", recipe.notes), ("measured", recipe.measured), ("commands", recipe.commands),
    ):  # fmt: skip
        if lines:
            out.print(f"{title}:")
        for line in lines:
            out.print(f"  {line}")
