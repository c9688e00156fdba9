"""Inputs that a user gives: a text, arrays, a table of series, or what Polygraphy saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, InputError
from xlstm_export.generation.text import open_codec
from xlstm_export.model.spec import ModelSpec
from xlstm_export.runtime.polygraphy_files import load_inputs
from xlstm_export.runtime.session import MOST_STEPS, Array
from xlstm_export.validation.checks.rollout import BASELINE_ROWS
from xlstm_export.validation.inputs import ROLLOUT, Feeds, Rollout

_OTHERS = 4 * BASELINE_ROWS
"""Rows that baselines see beside those of a file: it may hold few numbers, each of which counts."""
_MOST_TOKENS = 4096
"""Of a text that a model is run over whole."""
_TEXTS = {"", ".txt", ".md", ".text"}


@dataclass(frozen=True)
class Given:
    """``rollouts`` of ``rows`` rows to compare on; ``text`` as token ids [T] where it is one."""

    rollouts: list[Rollout]
    rows: int
    words: str
    text: Array | None = None


def read_inputs(path: Path, bundle: Path, spec: ModelSpec, batch: int) -> Given:
    """The file ``path`` as inputs of the model ``spec``.

    A text (.txt, .md) goes through the bundle's tokenizer; .npy is the first input, .npz and
    Polygraphy's .json hold inputs by name; of a .csv every column of numbers is a series.
    Raises InputError for what does not fit, BackendUnavailableError where a package is missing.
    """
    try:
        if path.suffix in _TEXTS:
            return _of_text(path, bundle, spec, batch)
        calls = _read_arrays(path, spec)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not readable as {path.suffix} ({error})") from error
    checked = [_checked(path, call, spec) for call in calls]
    random = np.random.default_rng(0)
    rollouts = [_cut(_with_others(call, spec, random), spec) for call in checked]
    rows = min(len(next(iter(call.values()))) for call in checked)
    ids = checked[0][spec.inputs[0].name][0] if spec.vocab_size is not None else None
    return Given(rollouts, rows, f"{len(calls)} calls of {path.name}", ids)


def real_rollouts(path: Path, folder: Path, spec: ModelSpec) -> list[Rollout]:
    """What the file ``path`` holds and nothing else: of a text its first tokens, in one sequence.

    ``folder`` has the tokenizer. Raises as ``read_inputs``.
    """
    given = read_inputs(path, folder, spec, 1)
    if given.text is not None:
        ids = given.text[None, :_MOST_TOKENS]
        return [_cut_evenly(spec.inputs[0].name, ids)]
    return [
        [{name: x[: given.rows] for name, x in call.items()} for call in rollout]
        for rollout in given.rollouts
    ]


def _cut_evenly(name: str, ids: Array) -> Rollout:
    return [
        {name: ids[:, start : start + MOST_STEPS]} for start in range(0, ids.shape[1], MOST_STEPS)
    ]


def _of_text(path: Path, bundle: Path, spec: ModelSpec, batch: int) -> Given:
    """Rows that begin at different places of the text, cut like any rollout."""
    if spec.vocab_size is None:
        raise InputError(f"{path}: a text, and the model takes no tokens: give .npy, .npz or .csv")
    codec = open_codec(bundle)
    if codec is None:
        raise InputError(f"{path}: a text, and {bundle} has no tokenizer.json: give ids as .npy")
    text = path.read_text(encoding="utf-8")
    ids = np.asarray(codec.encode(text), np.int64)
    if ids.size < 2:
        raise InputError(f"{path}: holds {ids.size} tokens, and nothing to predict")
    rows = batch + BASELINE_ROWS
    starts = np.arange(rows)[:, None] * ids.size // rows
    steps = min(sum(ROLLOUT), max(ids.size, 2))
    inputs = ids[(starts + np.arange(steps)) % ids.size]
    rollout = _cut({spec.inputs[0].name: inputs}, spec)
    return Given([rollout], batch, f"{path.name}, {ids.size} tokens, in {len(rollout)} calls", ids)


def _read_arrays(path: Path, spec: ModelSpec) -> list[dict[str, Array]]:
    first = spec.inputs[0].name
    if path.suffix == ".npy":
        return [{first: np.load(path, allow_pickle=False)}]
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return [dict(arrays)]
    if path.suffix == ".json":
        return load_inputs(path)
    if path.suffix == ".csv":
        return [{first: _series(path)}]
    raise InputError(f"{path}: give a .txt, .npy, .npz, .csv, or .json of Polygraphy")


def _series(path: Path) -> Array:
    """Columns of numbers as rows [series, T] of float32."""
    try:
        import pandas
    except ImportError as error:
        raise BackendUnavailableError(
            f"{path}: a table is read by pandas, which is missing: {install('pandas')}"
        ) from error
    table: Any = pandas.read_csv(path).select_dtypes("number")
    if table.empty:
        raise InputError(f"{path}: has no column of numbers")
    series: Array = table.to_numpy(np.float32).T
    return series


def _checked(path: Path, call: Mapping[str, Array], spec: ModelSpec) -> Feeds:
    """The model's own inputs, in their types; states that were saved with them are left out."""
    feeds: dict[str, Array] = {}
    for tensor in spec.inputs:
        if tensor.name not in call:
            raise InputError(f"{path}: no input {tensor.name}; it has {', '.join(sorted(call))}")
        array = np.asarray(call[tensor.name])
        fits = array.ndim == len(tensor.shape) and all(
            not isinstance(size, int) or size == found
            for size, found in zip(tensor.shape, array.shape, strict=True)
        )
        if not fits or not array.size:
            raise InputError(
                f"{path}: {tensor.name} has shape {list(array.shape)}, where the model takes "
                f"{list(tensor.shape)}"
            )
        feeds[tensor.name] = array.astype(tensor.dtype)
        if tensor.dtype == "int64" and spec.vocab_size is not None:
            _check_ids(path, feeds[tensor.name], spec.vocab_size)
    return feeds


def _check_ids(path: Path, ids: Array, vocabulary: int) -> None:
    wrong = ids[(ids < 0) | (ids >= vocabulary)]
    if wrong.size:
        raise InputError(f"{path}: token id {wrong[0]} is outside the vocabulary of {vocabulary}")


def _with_others(call: Feeds, spec: ModelSpec, random: np.random.Generator) -> Feeds:
    """The rows of ``call`` and more like them, for the baselines: few rows would be luck."""
    return {
        name: np.concatenate([rows, *(_like(rows, spec, random) for _ in range(_OTHERS))])
        for name, rows in call.items()
    }


def _like(rows: Array, spec: ModelSpec, random: np.random.Generator) -> Array:
    """One row [1, ...]: other ids, or the numbers of a row with as much noise as they spread."""
    row: Array = rows[random.integers(len(rows))][None]
    if rows.dtype.kind == "i":
        if not spec.vocab_size:
            return row
        ids: Array = random.integers(0, spec.vocab_size, row.shape)
        return ids
    spread = np.nanstd(rows) if np.isfinite(rows).any() else 0.0
    noisy: Array = (row + spread * random.standard_normal(row.shape)).astype(rows.dtype)
    return noisy


def _cut(call: Feeds, spec: ModelSpec) -> Rollout:
    """A sequence in calls like those of a rollout, then of at most 512 steps; else one call."""
    if not spec.has_sequence:
        return [call]
    (name,) = call
    ends, total = [0], call[name].shape[1]
    for length in ROLLOUT:
        if ends[-1] + length <= total:
            ends.append(ends[-1] + length)
    while ends[-1] < total:
        ends.append(min(total, ends[-1] + MOST_STEPS))
    return [{name: call[name][:, start:end]} for start, end in pairwise(ends)]
