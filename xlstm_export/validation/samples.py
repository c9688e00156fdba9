"""Inputs and outputs that were recorded where a model was trained: its own words on what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlstm_export.bundle.manifest import Manifest, shape_text
from xlstm_export.errors import InputError
from xlstm_export.model.spec import SEQUENCE
from xlstm_export.runtime.feeds import prepare_feeds
from xlstm_export.runtime.session import Array
from xlstm_export.validation.array_files import read_arrays
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
    for name, array in read_arrays(path).items():
        number, _, bare = name.rpartition("/")
        found.setdefault(number, {})[bare] = array
    return [_sample(path, number, arrays, manifest) for number, arrays in sorted(found.items())]


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
    _check_shapes(where, manifest, inputs, outputs)
    return Sample(inputs, {name: x.astype(np.float64) for name, x in outputs.items()})


def _check_shapes(
    where: str, manifest: Manifest, inputs: Feeds, outputs: Mapping[str, Array]
) -> None:
    """Raise InputError for an output of another shape than the bundle's of these ``inputs``."""
    sizes = _sizes(manifest, inputs)
    for tensor in manifest.outputs:
        if tensor.name not in outputs:
            continue
        wanted = [sizes.get(str(dim), dim) for dim in tensor.shape]
        found = list(outputs[tensor.name].shape)
        if manifest.logits == "last" and found[1:2] == [sizes.get(SEQUENCE)]:
            found[1] = 1  # of every step that was recorded the last is compared
        if len(found) != len(wanted) or any(
            isinstance(size, int) and size != own for size, own in zip(wanted, found, strict=True)
        ):
            raise InputError(
                f"{where}: {tensor.name} was recorded as {list(outputs[tensor.name].shape)}, the "
                f"bundle yields {shape_text(wanted)} of these inputs"
            )


def _sizes(manifest: Manifest, inputs: Feeds) -> dict[str, int]:
    """Sizes of the named dimensions, by the inputs; of a sum its one part that no other says."""
    sizes = {
        str(dim): size
        for tensor in manifest.inputs
        for dim, size in zip(tensor.shape, inputs[tensor.name].shape, strict=True)
    }
    for dim, total in list(sizes.items()):
        unknown = [part for part in dim.split("+") if part not in sizes]
        if len(unknown) == 1:
            known = (sizes[part] for part in dim.split("+") if part in sizes)
            sizes[unknown[0]] = total - sum(known)
    return sizes
