"""States as a value: what a session returns and takes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.errors import InputError
from xlstm_export.runtime.feeds import as_numbers

Array = np.ndarray[Any, Any]


class States(Mapping[str, Array]):
    """Every carried tensor of a batch, by key ``{layer}.{kind}.{letter}``; the batch comes first.

    ``States(arrays)`` is made of such a mapping. A session never changes the states it is given:
    keeping one is keeping that moment.
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
    for state in manifest.states:
        if state.key not in states:
            raise InputError(
                f"state {state.key} is missing; give every state, or none to start from zero"
            )
        found = _shape(state.key, states[state.key])
        if found != state.sized(batch):
            raise InputError(
                f"state {state.key}: shape {list(found)}, where this batch of {batch} needs "
                f"{list(state.sized(batch))}"
            )
    unknown = sorted(set(states) - {s.key for s in manifest.states})
    if unknown:
        raise InputError(f"state {unknown[0]}: the bundle has none of that name")


def _shape(key: str, value: Any) -> tuple[int, ...]:
    shape = getattr(value, "shape", None)  # an array on a device is not copied to be measured
    return tuple(as_numbers(f"state {key}", value).shape if shape is None else shape)
