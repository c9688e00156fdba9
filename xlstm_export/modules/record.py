"""What a network takes and gives where it was trained, kept in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xlstm_export.errors import InputError, UnsupportedModelError
from xlstm_export.modules.call import named_inputs, named_results
from xlstm_export.output import new_file


def record(
    module: nn.Module, inputs: Any, file: Path, input_names: Sequence[str],
    output_names: Sequence[str],
) -> Path:  # fmt: skip
    """As ``network.record_samples``."""
    if module.training:
        raise UnsupportedModelError(
            f"{type(module).__name__} is in training mode; call eval() before it is recorded"
        )
    is_list = isinstance(inputs, (list, tuple)) and all(isinstance(x, Mapping) for x in inputs)
    samples = list(inputs) if is_list else [inputs]
    if not samples:
        raise InputError("inputs: none are given")
    arrays: dict[str, Any] = {}
    for number, sample in enumerate(samples):
        prefix = f"{number}/" if len(samples) > 1 else ""
        arrays |= {f"{prefix}{n}": x for n, x in _run(module, sample, input_names, output_names)}
    with new_file(file) as work, work.open("wb") as content:
        np.savez(content, **arrays)
    return file


def _run(
    module: nn.Module, sample: Any, input_names: Sequence[str], output_names: Sequence[str]
) -> list[tuple[str, Any]]:
    given = named_inputs(module, sample)
    if input_names and len(input_names) != len(given):
        raise InputError(f"input_names: {len(input_names)} names for {len(given)} inputs")
    try:
        with torch.no_grad():
            found = module(**given)
    except Exception as error:  # whatever a user's network raises
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UnsupportedModelError(f"{type(module).__name__}: fails on inputs ({what})") from error
    named = zip(input_names or given, given.values(), strict=True)
    results = named_results(found, output_names)
    return [(name, _numbers(x)) for name, x in (*named, *results.items())]


def _numbers(x: Tensor) -> Any:
    x = x.detach().cpu()
    return (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()
