"""Inputs and outputs that were recorded where a model was trained: its own words on what it is."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.errors import InputError
from xlstm_export.runtime.feeds import prepare_feeds
from xlstm_export.runtime.session import Array
from xlstm_export.validation.inputs import Feeds


@dataclass(frozen=True)
class Sample:
    """One call from zero states: its inputs, and what was recorded of its outputs, by name."""

    inputs: Feeds
    outputs: dict[str, Array]


def read_samples(path: Path, manifest: Manifest) -> list[Sample]:
    """The samples of an .npz file: arrays by the names of the bundle's inputs and outputs.

    Several samples have numbers in front, as ``0/x``, ``0/output``, ``1/x`` and on. Raises
    InputError where the file is none, or its names and shapes are not the bundle's.
    """
    found: dict[str, dict[str, Array]] = {}
    for name, array in _read(path).items():
        number, _, bare = name.rpartition("/")
        found.setdefault(number, {})[bare] = array
    if not found:
        raise InputError(f"{path}: holds no arrays")
    return [_sample(path, number, arrays, manifest) for number, arrays in sorted(found.items())]


def _read(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as content:
            if isinstance(content, np.ndarray):
                raise ValueError
            return {name: content[name] for name in content.files}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: not a readable .npz file of numbers; xlstm_export.record_samples or "
            "numpy.savez writes one"
        ) from error


def _sample(path: Path, number: str, arrays: Mapping[str, Array], manifest: Manifest) -> Sample:
    where = f"{path}, sample {number}" if number else str(path)
    taken = {tensor.name for tensor in manifest.inputs}
    given = {tensor.name for tensor in manifest.outputs}
    unknown = arrays.keys() - taken - given
    if unknown or not given & arrays.keys():
        raise InputError(
            f"{where}: holds {', '.join(sorted(arrays))}, where the bundle takes "
            f"{', '.join(sorted(taken))} and yields {', '.join(sorted(given))}; record with these "
            "names (input_names, output_names of record_samples)"
        )
    try:
        inputs = prepare_feeds(manifest, {n: x for n, x in arrays.items() if n in taken})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    outputs = {name: x for name, x in arrays.items() if name in given}
    for name, x in outputs.items():
        if x.dtype.kind not in "fiu" or not np.isfinite(x).all():
            raise InputError(f"{where}: {name} holds what is no number")
    return Sample(inputs, {name: x.astype(np.float64) for name, x in outputs.items()})
