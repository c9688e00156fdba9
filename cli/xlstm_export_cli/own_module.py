"""A network of one's own, which stands in the place of a checkpoint."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

import xlstm_export as xe

_NOT_GIVEN = (None, "", ())
_WORDS = {"source": "SOURCE", "symmetric": "--symmetric/--asymmetric", "upstream": "--no-upstream"}
"""Of options that are not typed as they are called."""


def refuse(
    module: str | None, of_checkpoints: Mapping[str, Any], of_networks: Mapping[str, Any]
) -> None:
    """Raises BadParameter for options that are given and would have no effect.

    Those ``of_checkpoints`` beside ``--module``, those ``of_networks`` without it.
    """
    others = of_networks if module is None else of_checkpoints
    given = [name for name, value in others.items() if value not in _NOT_GIVEN]  # False is given
    if not given:
        return
    option = _WORDS.get(given[0], f"--{given[0].replace('_', '-')}")
    if module is None:
        raise typer.BadParameter(
            f"{option} goes with --module alone; a checkpoint's own weights are SOURCE itself"
        )
    raise typer.BadParameter(f"--module stands in the place of {option}: give one of them")


def export(
    module: str,
    weights: Path | None,
    out: Path,
    states: bool,
    progress: xe.Progress | None,
    **options: Any,
) -> xe.Bundle:
    """``xe.export_module`` with those of ``options`` that are given."""
    network, examples = _load(module, weights)
    given = {name: value for name, value in options.items() if value is not None}
    return xe.export_module(network, examples, out, states=states, progress=progress, **given)


def validate(
    bundle: Path, module: str, weights: Path | None, progress: xe.Progress | None, **options: Any
) -> xe.Report:
    """``xe.validate_module``."""
    network, examples = _load(module, weights)
    return xe.validate_module(bundle, network, examples, progress=progress, **options)


def _load(module: str, weights: Path | None) -> tuple[Any, Any]:
    """The network and its example inputs; modules are found in the current folder as well."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return xe.load_module(module, weights=weights)
