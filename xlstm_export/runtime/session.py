"""The one interface of everything that runs a model: states in, states out, batch first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xlstm_export.model.manifest import Manifest

Array = npt.NDArray[Any]
PIECE = 512
"""Longest stretch of time fed at once: memory does not grow with the prompt."""


class Session(Protocol):
    """A model that continues a sequence from a state."""

    name: str
    """Who computes: package, version, device, precision."""

    def run(
        self, inputs: Array, states: Mapping[str, Array] | None
    ) -> tuple[Array, Mapping[str, Array]]:
        """Continue from ``states`` (None = zero) over ids [B,T] or embeddings [B,T,D].

        Returns the output and every state by ``StateSpec.key``; ``states`` is not changed.
        """
        ...


class BundleSession(Session, Protocol):
    """A session of a bundle: ONNX Runtime, or an engine."""

    manifest: Manifest
    longest_piece: int
    """Steps a call at most, where a caller cuts a long input."""

    def describe(self) -> dict[str, str]:
        """Operator -> implementation that computes it in this session."""
        ...

    def run(
        self,
        inputs: Array,
        states: Mapping[str, Array] | None = None,
        lengths: Array | None = None,
    ) -> tuple[Array, Mapping[str, Array]]:
        """As ``Session.run``; ``lengths`` int32 [B] goes to a ragged bundle (default: all)."""
        ...


def pieces(inputs: Array, longest: int) -> list[Array]:
    """``inputs`` [B,T,...] cut along time into parts of at most ``longest`` steps."""
    return [inputs[:, start : start + longest] for start in range(0, inputs.shape[1], longest)]


def run_in_pieces(
    session: Session, inputs: Array, longest: int
) -> tuple[Array, Mapping[str, Array]]:
    """Outputs [B,T,...] and last states of ``session`` from the zero state.

    Time is fed in pieces of ``longest`` steps; the result is that of one call.
    """
    outputs: list[Array] = []
    states: Mapping[str, Array] | None = None
    for piece in pieces(inputs, longest):
        output, states = session.run(piece, states)
        outputs.append(output)
    assert states is not None
    return np.concatenate(outputs, axis=1), states
