"""The one interface of everything that runs a model: states in, states out, batch first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.runtime.choice import Choice
from xlstm_export.runtime.states import States

Array = npt.NDArray[Any]
MOST_STEPS = 512
"""Longest stretch of time fed at once: memory does not grow with the prompt."""


class Runner(Protocol):
    """A model that continues a sequence from a state: a session, or a torch reference."""

    name: str
    """Who computes: package, version, device, precision."""

    def run(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None
    ) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        """Continue from ``states`` (None = zero) over ``feeds``, inputs by name.

        Returns outputs by name and every state by key, ``{layer}.{kind}.{letter}``; ``states`` is
        not changed.
        """
        ...


class Session(Runner, Protocol):
    """A bundle that is open: in ONNX Runtime, or in TensorRT by an engine.

    ``run({"input_ids": ids}, states)`` continues from ``states`` (None: from zero) over token ids
    int64 [batch, sequence] (a bare stack: ``inputs_embeds`` float32 [batch, sequence, size]), and
    returns ``(outputs, states)``: outputs by name, such as float32 ``logits`` [batch, sequence,
    vocab], and the states to go on from. A ragged bundle also takes ``sequence_lengths`` int32
    [batch]. Raises InputError for what does not fit.
    """

    bundle: Path
    manifest: Manifest
    most_steps: int
    """Steps a call at most, where a caller cuts a long input."""

    def run(
        self,
        feeds: Mapping[str, Array],
        states: Mapping[str, Array] | None = None,
        *,
        last: bool = False,
    ) -> tuple[Mapping[str, Array], States]:
        """As above; with ``last``, of outputs over time each row's last step, [batch, 1, ...].

        Only what is asked for is copied from a device.
        """
        ...

    def choose(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None
    ) -> tuple[Sequence[Choice], States]:
        """As ``run`` of a language model, with each row's likeliest next token in place of logits.

        Of equal ones it is the lowest id. It is chosen where the session computes: logits stay on a
        GPU, and 12 bytes a row come to the host. Of a ragged bundle's row it is the token after its
        last step. Raises BundleError where the bundle is no language model, and what ``run`` does.
        """
        ...

    def describe(self) -> dict[str, str]:
        """Operator domain -> implementation that computes its operators in this session.

        In ONNX Runtime what the loaded library says of itself, for an engine what its record says.
        """
        ...

    def close(self) -> None:
        """Give memory back; the session runs no more."""
        ...


def split_time(inputs: Array, most: int) -> Iterator[Array]:
    """``inputs`` [B,T,...] cut along time into parts of at most ``most`` steps."""
    return (inputs[:, start : start + most] for start in range(0, inputs.shape[1], most))


def run_split(
    runner: Runner, name: str, inputs: Array, most: int
) -> tuple[dict[str, Array], Mapping[str, Array]]:
    """Outputs [B,T,...] and last states of ``runner`` from the zero state, for one input ``name``.

    Time is fed ``most`` steps at once; the result is that of one call.
    """
    outputs: list[Mapping[str, Array]] = []
    states: Mapping[str, Array] | None = None
    for part in split_time(inputs, most):
        output, states = runner.run({name: part}, states)
        outputs.append(output)
    assert states is not None
    return {key: np.concatenate([o[key] for o in outputs], axis=1) for key in outputs[0]}, states
