"""A network by the name of the function that makes it, with weights from a file."""

from __future__ import annotations

import importlib
import sysconfig
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xlstm_export.checkpoint.weight_files import read_tensors
from xlstm_export.errors import CheckpointError, OptionError
from xlstm_export.model.weights import Weight

_SHOWN = 4
_INSTALLED = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))
"""Where Python and packages are: what fails there was called from the user's file."""


def load_network(module: str, weights: Path | None) -> tuple[nn.Module, Any]:
    """As ``network.load_module``."""
    made = _call(module)
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise OptionError(
            "module",
            f"{module}: returns {type(made).__name__}; let it return the network and its example "
            "inputs: return network, example_inputs",
        )
    network, example_inputs = made
    if weights is not None:
        _fill(network, weights)
    return network.eval(), example_inputs


def _call(name: str) -> Any:
    path, _, attribute = name.partition(":")
    if not path or not attribute.isidentifier():
        raise OptionError("module", f"{name}: write package.module:function")
    try:
        function = getattr(importlib.import_module(path), attribute, None)
    except (Exception, SystemExit) as error:  # to import a file is to run it
        told = f"{name}: {path} cannot be imported {_in_words(error)}"
        raise OptionError("module", told) from error
    if not callable(function):
        raise OptionError("module", f"{name}: {path} has no function {attribute}")
    try:
        return function()
    except (Exception, SystemExit) as error:  # it is the user's
        told = f"{name}: cannot be called without arguments {_in_words(error)}"
        raise OptionError("module", told) from error


def _in_words(error: BaseException) -> str:
    """What was raised, and the line of the user's own code that it came from, where there is one.

    >>> _in_words(ValueError("no data here"))
    '(ValueError: no data here)'
    """
    said = str(error)
    places = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*_INSTALLED, "<", __file__))
    ]
    if isinstance(error, SyntaxError):
        said = error.msg
        places.append(f"{error.filename}:{error.lineno}")
    what = f"{type(error).__name__}: {said}".splitlines()[0]
    return f"({what}), at {places[-1]}" if places else f"({what})"


def _fill(network: nn.Module, path: Path) -> None:
    """Every parameter and buffer from ``path``. Raises CheckpointError."""
    stored, wanted = read_tensors([path]).tensors, network.state_dict()
    # what modules that wrap a network put before its names may be the network's own here
    as_saved = {weight.sources[0]: weight for weight in stored.values()}
    found = as_saved if as_saved.keys() == wanted.keys() else stored
    for what, names in (("lacks", wanted.keys() - found), ("has unknown", found.keys() - wanted)):
        if names:
            raise CheckpointError(f"{path}: {what} {_some(names)} of the network")
    for name, tensor in wanted.items():
        if found[name].shape != tuple(tensor.shape):
            raise CheckpointError(
                f"{path}: {name} is {list(found[name].shape)}, where the network has "
                f"{list(tensor.shape)}"
            )
    network.load_state_dict(_tensors(found))


def _tensors(weights: Mapping[str, Weight]) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(np.ascontiguousarray(_plain(weight)))
        for name, weight in weights.items()
    }


def _plain(weight: Weight) -> Any:
    """Numbers of a type that torch takes from numpy: bfloat16 as float32, which holds it."""
    array = weight.load()
    return array.astype(np.float32) if weight.dtype == "bfloat16" else array


def _some(names: Any) -> str:
    shown = sorted(names)[:_SHOWN]
    return ", ".join(shown) + (", …" if len(names) > _SHOWN else "")
