"""What a session is given, checked against the manifest: each mistake is an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xlstm_export.bundle.manifest import LENGTHS, Manifest, TensorInfo, shape_text
from xlstm_export.errors import BundleError, InputError

Array = npt.NDArray[Any]


def prepare_feeds(manifest: Manifest, feeds: Mapping[str, Any]) -> dict[str, Array]:
    """``feeds`` by input name as C-contiguous arrays of the types that the graph takes.

    ``sequence_lengths`` may be left out: every row then has every step. A dimension of one name
    has one size, and one named as a sum (a+b) the sum of theirs. Raises InputError.
    """
    check_names(manifest, feeds)
    prepared: dict[str, Array] = {}
    known: dict[str, tuple[int, str]] = {}
    for tensor in manifest.inputs:
        if tensor.name == LENGTHS:
            batch = len(prepared[manifest.inputs[0].name])
            prepared[LENGTHS] = prepare_lengths(feeds.get(LENGTHS), batch)
            continue
        array = prepared[tensor.name] = _prepare(tensor, feeds[tensor.name], manifest)
        for name, size in zip(tensor.shape, array.shape, strict=True):
            if isinstance(name, str) and known.setdefault(name, (size, tensor.name))[0] != size:
                raise InputError(
                    f"{tensor.name}: {name} is {size}, where {known[name][1]} has {known[name][0]}"
                )
    _check_sums({name: size for name, (size, _) in known.items()}, known)
    return prepared


def _check_sums(sizes: dict[str, int], known: Mapping[str, tuple[int, str]]) -> None:
    """Raise InputError where a dimension a+b is not the sum; a part no input has is at least 1."""
    for dim, (size, tensor) in known.items():
        parts = dim.split("+")
        if len(parts) == 1:
            continue
        found = [sizes[part] for part in parts if part in sizes]
        open_parts = len(parts) - len(found)
        if size != sum(found) if not open_parts else size < sum(found) + open_parts:
            others = ", ".join(f"{part} {sizes.get(part, 'at least 1')}" for part in parts)
            raise InputError(f"{tensor}: {dim} is {size}, with {others}")


def check_patches(manifest: Manifest, feeds: Mapping[str, Array]) -> None:
    """Raise InputError unless a forecaster that goes on is given whole patches."""
    info, first = manifest.forecast, manifest.inputs[0].name
    if info is None or not hasattr(feeds.get(first), "shape"):
        return
    steps = feeds[first].shape[-1]
    if steps % info.patch:
        raise InputError(
            f"{first}: {steps} steps, where a call with states goes on by a multiple of "
            f"{info.patch}; begin again, without states, to forecast from elsewhere"
        )


def check_goes_on(bundle: Path, manifest: Manifest) -> None:
    """Raise BundleError unless a language model's call may go on from the states of another.

    A network of one's own may yield logits and carry no states: after the prompt it would see the
    last token alone.
    """
    if not manifest.carries:
        raise BundleError(
            f"{bundle}: carries no states, so that no text goes on by it; export it again with "
            "--states (export_module: states=True), or give whole sequences to xlstm_export.open"
        )


def has_time(tensor: TensorInfo) -> bool:
    """Whether an output has a step for each that was fed: [batch, sequence, ...]."""
    return tensor.shape[1:2] == ("sequence",)


def check_names(manifest: Manifest, feeds: Mapping[str, Any]) -> None:
    """Raise InputError unless ``feeds`` has the inputs of ``manifest`` and no others."""
    if not isinstance(feeds, Mapping):
        raise InputError(
            f"inputs are given by name, such as {{{manifest.inputs[0].name!r}: array}}, not as "
            f"{type(feeds).__name__}"
        )
    known = {tensor.name: tensor for tensor in manifest.inputs}
    for name in feeds:
        if name == LENGTHS and name not in known:
            raise InputError(f"{LENGTHS}: is for bundles of export --ragged")
        if name not in known:
            raise InputError(f"{name}: no input of this bundle; it takes {', '.join(known)}")
    for name, tensor in known.items():
        if name not in feeds and name != LENGTHS:
            raise InputError(f"{name}: is missing; give {tensor.dtype} {shape_text(tensor.shape)}")


def prepare_lengths(given: Any | None, batch: int) -> Array:
    """int32 [batch] from ``given``; None: every row has every step. Raises InputError."""
    if given is None:
        return np.full(batch, -1, np.int32)
    lengths = as_numbers(LENGTHS, given, "iu")
    if lengths.shape != (batch,):
        raise InputError(f"{LENGTHS}: shape {list(lengths.shape)}, expected [{batch}]")
    # more than there are means all of them
    return np.ascontiguousarray(np.clip(lengths, -1, np.iinfo(np.int32).max), np.int32)


def _prepare(tensor: TensorInfo, given: Any, manifest: Manifest) -> Array:
    is_ids = tensor.dtype.startswith("int")
    numbers = as_numbers(tensor.name, given, "iu" if is_ids else "fiu")
    least = 1 if tensor == manifest.inputs[0] else 0  # of a further input there may be none
    fits = len(numbers.shape) == len(tensor.shape) and all(
        size >= least and (isinstance(want, str) or want == size)
        for want, size in zip(tensor.shape, numbers.shape, strict=False)
    )
    if not fits:
        raise InputError(
            f"{tensor.name}: shape {list(numbers.shape)}, expected {shape_text(tensor.shape)}"
            f"{', no dimension 0' if least else ''}"
        )
    if is_ids:
        check_ids(tensor.name, numbers, manifest)
    return np.ascontiguousarray(numbers, tensor.dtype)


def check_ids(name: str, ids: Array, manifest: Manifest) -> None:
    """Raise InputError for an id that is negative, or outside the vocabulary where it is known."""
    size = manifest.vocabulary
    wrong = ids[(ids < 0) | (ids >= (np.iinfo(np.int64).max if size is None else size))]
    if wrong.size:
        known = "" if size is None else f" of {size}"
        raise InputError(f"{name}: token id {wrong[0]} is outside the vocabulary{known}")


def as_numbers(name: str, given: Any, kinds: str = "fiu") -> Array:
    """``given`` as an array of one of numpy's ``kinds`` of numbers. Raises InputError."""
    try:
        numbers = np.asarray(given)
    except Exception as error:  # whatever an array library raises when it is asked for numbers
        raise InputError(f"{name}: cannot be read as an array ({error})") from error
    kind = "f" if numbers.dtype.name == "bfloat16" else numbers.dtype.kind
    if kind not in kinds:
        wanted = "whole numbers" if "f" not in kinds else "numbers"
        raise InputError(f"{name}: holds {numbers.dtype}, expected {wanted}")
    return numbers
