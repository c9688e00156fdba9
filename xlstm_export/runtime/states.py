"""States as a value: what a session returns and takes back."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.errors import InputError
from xlstm_export.runtime.feeds import as_numbers
from xlstm_export.runtime.rows import gather

Array = np.ndarray[Any, Any]


class States(Mapping[str, Array]):
    """Every carried tensor of a batch, by key ``{layer}.{kind}.{letter}``; the batch comes first.

    ``States(arrays)`` is made of such a mapping. A session never changes the states it is given,
    nor does anything here: keeping one is keeping that moment. Rows are gathered where the arrays
    lie, on a GPU too.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = dict(arrays)

    @classmethod
    def zeros(cls, manifest: Manifest, batch: int) -> States:
        """The states before the first step, for ``batch`` rows."""
        return cls({s.key: s.initial(batch) for s in manifest.states})

    @property
    def batch(self) -> int:
        """Rows; 0 where there are no states."""
        return next((int(array.shape[0]) for array in self.arrays.values()), 0)

    @property
    def nbytes(self) -> int:
        """Size of all of them in bytes."""
        return sum(int(array.nbytes) for array in self.arrays.values())

    def rows(self, indices: Iterable[int]) -> States:
        """Those rows, in that order; one may come twice. Raises InputError for a row not there."""
        return self.gathered([], self._checked(indices))

    def join(self, *others: States) -> States:
        """The rows of all, one below the other. Raises InputError where they do not fit."""
        for other in others:
            if set(other) != set(self):
                raise InputError("states of different models cannot be joined")
            for key, array in self.arrays.items():
                if tuple(other.arrays[key].shape[1:]) != tuple(array.shape[1:]):
                    raise InputError(f"state {key}: of different models, which cannot be joined")
        count = self.batch + sum(states.batch for states in others)
        return self.gathered(others, np.arange(count))

    def reset(self, rows: Iterable[int]) -> States:
        """The same, those rows before their first step. Raises InputError for one not there."""
        indices = np.arange(self.batch)
        indices[self._checked(rows)] = -1
        return self.gathered([], indices)

    def copy(self) -> States:
        """The same in memory of its own: a fork that lives on whatever becomes of this one."""
        return self.gathered([], np.arange(self.batch))

    def save(self, path: str | Path, manifest: Manifest) -> None:
        """Write them to ``path`` as safetensors, with the digest of their bundle's ``manifest``.

        Raises InputError where they are not those of ``manifest``, TargetError.
        """
        from xlstm_export.runtime.states_file import save_states

        save_states(self, Path(path), manifest)

    @classmethod
    def load(cls, path: str | Path, manifest: Manifest) -> States:
        """What ``save`` wrote to ``path``, for the bundle of ``manifest``.

        Raises InputError where the file is damaged, or of another bundle.
        """
        from xlstm_export.runtime.states_file import load_states

        return load_states(Path(path), manifest)

    def gathered(self, others: Sequence[States], indices: Array) -> States:
        """Rows ``indices`` of these and ``others``, counted through; -1 is one before its start."""
        several = [self, *others]
        return type(self)(
            {key: gather([s.arrays[key] for s in several], indices) for key in self.arrays}
        )

    def _checked(self, indices: Iterable[int]) -> Array:
        try:
            found = np.array([operator.index(index) for index in indices], np.int64)
        except TypeError as error:
            raise InputError(f"rows are given as whole numbers ({error})") from error
        wrong = found[(found < 0) | (found >= self.batch)]
        if wrong.size:
            raise InputError(f"row {wrong[0]}: there are {self.batch}, counted from 0")
        return found

    def __getitem__(self, key: str) -> Array:
        return np.asarray(self.arrays[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        return f"States({len(self)} tensors, batch {self.batch}, {self.nbytes} bytes)"


def check_states(manifest: Manifest, states: Mapping[str, Any], batch: int) -> None:
    """Raise InputError unless ``states`` are those of ``manifest`` for ``batch`` rows."""
    if not isinstance(states, Mapping):
        raise InputError(
            f"states are given by key, as the call before returned them, not as "
            f"{type(states).__name__}"
        )
    given = states.arrays if isinstance(states, States) else states
    for state in manifest.states:
        if state.key not in given:
            raise InputError(
                f"state {state.key} is missing; give every state, or none to start from zero"
            )
        found = _shape(state.key, given[state.key])
        if found != state.sized(batch):
            raise InputError(
                f"state {state.key}: shape {list(found)}, where this batch of {batch} needs "
                f"{list(state.sized(batch))}"
            )
    if len(given) > len(manifest.states):
        unknown = sorted(set(given) - {s.key for s in manifest.states})
        raise InputError(f"state {unknown[0]}: the bundle has none of that name")


def _shape(key: str, value: Any) -> tuple[int, ...]:
    shape = getattr(value, "shape", None)  # an array on a device is not copied to be measured
    return tuple(as_numbers(f"state {key}", value).shape if shape is None else shape)
