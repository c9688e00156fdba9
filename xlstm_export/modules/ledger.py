"""The states of a network's recurrences: where each takes its own from, and leaves it.

It is no part of the module tree, so that torch.export sees tensors pass by and no attribute change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Ledger:
    """States by key ``{module path}.{letter}``; a path's second call is ``{module path}.2``.

    ``past`` None: every recurrence begins at zero. ``present`` is in the order of the calls;
    ``calls`` counts those of every recurrence by path, and ``stepped`` are the paths of those
    whose ``step`` was called. With ``probes``, numbers that no operator gives out are NaN, and
    ``probed`` says whose.
    """

    def __init__(self) -> None:
        self.begin(None)

    def begin(self, past: Mapping[str, Tensor] | None, probes: bool = False) -> None:
        """A new call of the network, from the states ``past``."""
        self.past, self.probes = past, probes
        self.probed: set[str] = set()
        self.present: dict[str, Tensor] = {}
        self.calls: Counter[str] = Counter()
        self.stepped: set[str] = set()
        self._entered: Counter[str] = Counter()

    def enter(self, path: str) -> str:
        """The name of this call of the recurrence at ``path``."""
        self._entered[path] += 1
        count = self._entered[path]
        return ".".join(filter(None, (path, str(count) if count > 1 else "")))

    def take(
        self, call: str, letters: str, sizes: Sequence[Sequence[int]], rows: int, dtype: torch.dtype
    ) -> list[Tensor]:
        """States of ``call``, one per letter: [rows, *sizes]."""
        if self.past is not None:
            return [self.past[_key(call, letter)] for letter in letters]
        return [torch.zeros(rows, *size, dtype=dtype) for size in sizes]

    def give(self, call: str, letters: str, states: Sequence[Tensor]) -> None:
        """The states of ``call`` after its last step."""
        keys = [_key(call, letter) for letter in letters]
        self.present.update(zip(keys, states, strict=True))


def _key(call: str, letter: str) -> str:
    return f"{call}.{letter}" if call else letter
