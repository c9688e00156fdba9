"""The one interface of everything that runs a model: states in, states out, batch first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Session(Protocol):
    """A model that continues a sequence from a state."""

    name: str
    """Who computes: package, version, device, precision."""

    def run(
        self, inputs: Array, states: Mapping[str, Array] | None
    ) -> tuple[Array, dict[str, Array]]:
        """Continue from ``states`` (None = zero) over ids [B,T] or embeddings [B,T,D].

        Returns the output and every state by ``StateSpec.key``; ``states`` is not changed.
        """
        ...


def pieces(inputs: Array, longest: int) -> list[Array]:
    """``inputs`` [B,T,...] cut along time into parts of at most ``longest`` steps."""
    return [inputs[:, start : start + longest] for start in range(0, inputs.shape[1], longest)]


def run_in_pieces(session: Session, inputs: Array, longest: int) -> tuple[Array, dict[str, Array]]:
    """Outputs [B,T,...] and last states of ``session`` from the zero state.

    Time is fed in pieces of ``longest`` steps; the result is that of one call.
    """
    outputs: list[Array] = []
    states: dict[str, Array] | None = None
    for piece in pieces(inputs, longest):
        output, states = session.run(piece, states)
        outputs.append(output)
    assert states is not None
    return np.concatenate(outputs, axis=1), states
