"""Inputs that a user gives: a text, arrays, a table of series, or what Polygraphy saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from xlstm_export.errors import InputError
from xlstm_export.generation.tables import read_table
from xlstm_export.generation.text import open_codec
from xlstm_export.model.layers.joined_variates import JoinedVariates
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.variates import CONTEXT, FUTURE, GROUPS, PAST
from xlstm_export.runtime.feeds import as_numbers
from xlstm_export.runtime.polygraphy_files import load_inputs
from xlstm_export.runtime.session import MOST_STEPS, Array
from xlstm_export.validation.array_files import read_array, read_arrays
from xlstm_export.validation.checks.rollout import BASELINE_ROWS
from xlstm_export.validation.inputs import ROLLOUT, Feeds, Rollout
from xlstm_export.validation.variates import is_multivariate

_OTHERS = 4 * BASELINE_ROWS
"""Rows that baselines see beside those of a file: it may hold few numbers, each of which counts."""
MOST_TOKENS = 4096
"""Of a text that a model is run over whole."""
_ROWS_AT_ONCE = 8
"""Of many sequences: the logits of all of them may not fit into memory."""
_TEXTS = {"", ".txt", ".md", ".text"}


@dataclass(frozen=True)
class Given:
    """``rollouts`` of ``rows`` rows to compare on; ``text``: token ids [T] of a text, or of the
    first of several sequences.
    """

    rollouts: list[Rollout]
    rows: int
    words: str
    text: Array | None = None


def read_inputs(path: Path, bundle: Path, spec: ModelSpec, batch: int) -> Given:
    """The file ``path`` as inputs of the model ``spec``.

    A text (.txt, .md) goes through the bundle's tokenizer; .npy is the first input, .npz and
    Polygraphy's .json hold inputs by name; of a table (.csv) every column of numbers is a series.
    Raises InputError for what does not fit, BackendUnavailableError where a package is missing.
    """
    if path.suffix in _TEXTS:
        return _of_text(path, bundle, spec, batch)
    checked = _read_calls(path, spec)
    random = np.random.default_rng(0)
    rollouts = [_cut(_with_others(call, spec, random), spec) for call in checked]
    rows = min(len(next(iter(call.values()))) for call in checked)
    ids = checked[0][spec.inputs[0].name][0] if spec.vocab_size is not None else None
    return Given(rollouts, rows, f"{len(checked)} calls of {path.name}", ids)


def real_rollouts(path: Path, folder: Path, spec: ModelSpec) -> list[Rollout]:
    """What the file ``path`` holds and nothing else: of a text its first tokens, in one sequence;
    of arrays and tables every row, each a sequence of its own.

    ``folder`` has the tokenizer. Raises as ``read_inputs``.
    """
    name = spec.inputs[0].name
    if path.suffix in _TEXTS:
        return [_cut_evenly(name, _encoded(path, folder, spec)[None, :MOST_TOKENS])]
    parts = [
        {key: x[start : start + _ROWS_AT_ONCE] for key, x in call.items()}
        for call in _read_calls(path, spec)
        for start in range(0, len(call[name]), _ROWS_AT_ONCE)
    ]
    return [_cut_evenly(name, part[name]) if spec.has_sequence else [part] for part in parts]


def _cut_evenly(name: str, x: Array) -> Rollout:
    return [{name: x[:, start : start + MOST_STEPS]} for start in range(0, x.shape[1], MOST_STEPS)]


def _of_text(path: Path, bundle: Path, spec: ModelSpec, batch: int) -> Given:
    """Rows that begin at different places of the text, cut like any rollout."""
    ids = _encoded(path, bundle, spec)
    rows = batch + BASELINE_ROWS
    starts = np.arange(rows)[:, None] * ids.size // rows
    steps = min(sum(ROLLOUT), max(ids.size, 2))
    inputs = ids[(starts + np.arange(steps)) % ids.size]
    rollout = _cut({spec.inputs[0].name: inputs}, spec)
    return Given([rollout], batch, f"{path.name}, {ids.size} tokens, in {len(rollout)} calls", ids)


def _encoded(path: Path, folder: Path, spec: ModelSpec) -> Array:
    """The token ids [T] of the text ``path``, by the tokenizer in ``folder``."""
    if spec.vocab_size is None:
        raise InputError(f"{path}: a text, and the model takes no tokens: give .npy, .npz or .csv")
    codec = open_codec(folder)
    if codec is None:
        raise InputError(f"{path}: a text, and {folder} has no tokenizer.json: give ids as .npy")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text ({error})") from error
    ids: Array = np.asarray(codec.encode(text), np.int64)
    if ids.size < 2:
        raise InputError(f"{path}: holds {ids.size} tokens, and nothing to predict")
    return ids


def _read_calls(path: Path, spec: ModelSpec) -> list[Feeds]:
    """The calls of a file of arrays or of a table, each with all inputs of the model."""
    first = spec.inputs[0].name
    calls: list[dict[str, Array]]
    if path.suffix == ".npy":
        calls = [{first: read_array(path)}]
    elif path.suffix == ".npz":
        calls = [read_arrays(path)]
    elif path.suffix == ".json":
        try:
            calls = load_inputs(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    elif path.suffix == ".csv":
        series = np.stack(list(read_table(path).series.values()))
        calls = [{first: series[None] if is_multivariate(spec) else series}]
    else:
        raise InputError(f"{path}: give a .txt, .npy, .npz, .csv, or .json of Polygraphy")
    return [_checked(path, _with_covariates(call, spec), spec) for call in calls]


def _with_covariates(call: Mapping[str, Array], spec: ModelSpec) -> Mapping[str, Array]:
    """Of a forecaster of several series: targets given alone are one group without covariates."""
    context = np.asarray(call.get(CONTEXT, 0))
    if not is_multivariate(spec) or context.ndim != 3 or {PAST, FUTURE, GROUPS} & call.keys():
        return call
    rows, targets, length = context.shape
    (sizes,) = spec.layers_of(JoinedVariates)
    return {
        **call,
        PAST: np.zeros((rows, 0, length), np.float32),
        FUTURE: np.zeros((rows, 0, length + sizes.future_size), np.float32),
        GROUPS: np.zeros((rows, targets), np.int64),
    }


def _checked(path: Path, call: Mapping[str, Array], spec: ModelSpec) -> Feeds:
    """The model's own inputs, in their types; states that were saved with them are left out."""
    feeds: dict[str, Array] = {}
    for tensor in spec.inputs:
        if tensor.name not in call:
            raise InputError(f"{path}: no input {tensor.name}; it has {', '.join(sorted(call))}")
        is_ids = tensor.dtype.startswith("int")
        try:
            array = as_numbers(tensor.name, call[tensor.name], "iu" if is_ids else "fiu")
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        is_first = tensor == spec.inputs[0]  # of a further input there may be none
        fits = array.ndim == len(tensor.shape) and all(
            not isinstance(size, int) or size == found
            for size, found in zip(tensor.shape, array.shape, strict=True)
        )
        if not fits or (is_first and not array.size):
            raise InputError(
                f"{path}: {tensor.name} has shape {list(array.shape)}, where the model takes "
                f"{list(tensor.shape)}"
            )
        feeds[tensor.name] = array.astype(tensor.dtype)
        if is_ids and spec.vocab_size is not None:
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
