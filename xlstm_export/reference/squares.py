"""How large the inputs of a model's matrices are on real data, by which scales are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.weights import Weights, count_parameters
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.reference.threads import is_small, torch_threads
from xlstm_export.runtime.session import Array


@dataclass
class Squares:
    """Sums of squares of each input [in] of the matrices, by name, and how many were added."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def multiplies(self, name: str, x: Tensor) -> None:
        """``x`` [..., in] comes to the matrix ``name``."""
        rows = x.reshape(-1, x.shape[-1]).double()
        rows = rows[torch.isfinite(rows).all(-1)]
        self.sums[name] = self.sums.get(name, torch.zeros(())) + rows.square().sum(0)
        self.counts[name] = self.counts.get(name, 0) + len(rows)

    def means(self) -> dict[str, npt.NDArray[np.float32]]:
        """Mean squares [in], float32."""
        return {
            name: (total / max(1, self.counts[name])).float().numpy()
            for name, total in self.sums.items()
        }


def mean_squares(
    spec: ModelSpec, weights: Weights, rollouts: Iterable[Sequence[Mapping[str, Array]]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Mean square of every input of the matrices over ``rollouts``, states carried in each.

    The model computes in float32 on the checkpoint's own numbers.
    """
    squares = Squares()
    model = ReferenceModel(spec, weights, "float32", "float32", "chunkwise", watch=squares)
    with torch_threads(1 if is_small(count_parameters(weights.values())) else None):
        for rollout in rollouts:
            states: Mapping[str, Array] | None = None
            for feeds in rollout:
                _, states = model.run(feeds, states if spec.recurrence != "inner" else None)
    return squares.means()
