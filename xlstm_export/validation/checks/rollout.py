"""A carried rollout of everyone who takes part, judged tensor by tensor over all its calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xlstm_export.bundle.manifest import LENGTHS, Manifest
from xlstm_export.interrupts import undisturbed
from xlstm_export.model.spec import SEQUENCE, ModelSpec
from xlstm_export.progress import Progress
from xlstm_export.reference.threads import SINGLE, Sharing, torch_threads
from xlstm_export.runtime.session import Array, Runner
from xlstm_export.validation.inputs import Feeds, Rollout
from xlstm_export.validation.measures.forecast import ForecastTally
from xlstm_export.validation.measures.tensor import TensorTally
from xlstm_export.validation.tally import Interrupted, Tally, TensorResult
from xlstm_export.validation.tolerance import errors, magnitude

BASELINE_ROWS = 6
"""Rows that the baselines run beside the subject's: their largest error is a rare event, and too
few rows would make the allowance a matter of luck."""

_FEW = 100
"""Fewer numbers than that in a row say little of how it rounds."""
_RAGGED_STEPS = 80


Seen = tuple[Array, Array | None]
"""The series up to a forecast, and what came after it; None where nothing did."""


@dataclass(frozen=True)
class Runners:
    """Who takes part in a comparison.

    ``reference`` is what the subject is held to: upstream's module, or our float64 model.
    ``float64`` is our model, which the baselines, torch in the subject's dtype, are held to. The
    two are one function if the reader is right; a fault it shares with the baselines must not
    widen what they allow.
    """

    subject: Runner
    reference: Runner
    float64: Runner
    recurrent: Runner
    chunkwise: Runner


@dataclass
class Tallies:
    """One tally for each output of a model, and one for each of its states."""

    manifest: Manifest
    few: bool = False
    outputs: dict[str, Tally] = field(default_factory=dict)
    states: dict[str, Tally] = field(default_factory=dict)

    def add(
        self, outputs: Sequence[Mapping[str, Array]], states: Sequence[Mapping[str, Array]],
        end: int,
    ) -> None:  # fmt: skip
        """Tensors of subject, reference, float64, and the baselines after step ``end``."""
        for name in outputs[0]:
            if name not in self.outputs:
                self.outputs[name] = self._tally_of(name)
            self.outputs[name].add([output[name] for output in outputs], end)
        for key in states[0]:
            self.states.setdefault(key, Tally(few=self.few)).add(
                [state[key] for state in states], end
            )

    def add_forecast(self, outputs: Sequence[Mapping[str, Array]], seen: Seen) -> None:
        """What ``outputs`` of subject and reference foretell, against what came."""
        for name, tally in self.outputs.items():
            if tally.forecast is not None:
                got, exact = (output[name] for output in outputs)
                tally.forecast.add(got, exact, *seen)

    def _tally_of(self, name: str) -> Tally:
        is_sequence = self.manifest.inputs[0].shape[1:2] == (SEQUENCE,)
        forecast = self.manifest.forecast
        return Tally(
            is_logits=name == "logits" and is_sequence,
            few=self.few,
            forecast=ForecastTally(forecast.levels) if forecast else None,
            tensor=TensorTally(is_sequence),
        )

    def results(self, prefix: str = "") -> list[TensorResult]:
        """One for each output and state; ``prefix`` begins their names."""
        # states are float32 in every bundle; the output carries the rounding of its dtype
        dtype = self.manifest.dtype
        outputs = [t.result(prefix + n, "output", dtype) for n, t in self.outputs.items()]
        states = [t.result(prefix + k, "state", "float32") for k, t in self.states.items()]
        return [*outputs, *states]


def baseline_rows(spec: ModelSpec) -> int:
    """Rows that the baselines run beside the subject's.

    Where an input is badly conditioned, one row has the largest error of everyone, and each has his
    own luck in it: over hundreds of numbers that is the same for all, over ten it is not. There
    the baselines see four times as many rows, so that theirs is no rarer an event.
    """
    sizes = [size for tensor in spec.outputs for size in tensor.shape[1:]]
    numbers = math.prod(size for size in sizes if isinstance(size, int))
    is_many = numbers >= _FEW or any(isinstance(size, str) for size in sizes)
    return BASELINE_ROWS if is_many else 4 * BASELINE_ROWS


def compare_rollout(
    runners: Runners,
    rollouts: Sequence[Rollout],
    batch: int,
    manifest: Manifest,
    sharing: Sharing = SINGLE,
    progress: Progress | None = None,
) -> list[TensorResult]:
    """Run every call of ``rollouts`` through everyone, each carrying its own states.

    Of the rows subject and reference see the first ``batch`` and the baselines all; ``manifest``
    is the subject's. As many run at once as ``sharing`` says. Returns one result per output and
    state. Raises Interrupted, with the results so far, where a keyboard interrupt comes.
    """
    rows = len(next(iter(rollouts[0][0].values())))
    tallies = Tallies(manifest, few=rows > batch + BASELINE_ROWS)
    try:
        with torch_threads(sharing.each):
            _compare_calls(tallies, runners, rollouts, batch, sharing.workers, progress)
    except KeyboardInterrupt:
        raise Interrupted(tallies.results()) from None
    return tallies.results()


def _compare_calls(
    tallies: Tallies, runners: Runners, rollouts: Sequence[Rollout], batch: int, workers: int,
    progress: Progress | None,
) -> None:  # fmt: skip
    manifest = tallies.manifest
    everyone = (
        runners.subject, runners.reference, runners.float64, runners.recurrent, runners.chunkwise,
    )  # fmt: skip
    done, total = 0, sum(steps_of(call) for rollout in rollouts for call in rollout)
    with ThreadPoolExecutor(workers) as pool:
        for rollout in rollouts:
            states: Sequence[Any] = [None] * len(everyone)
            end = 0
            for number, call in enumerate(rollout):
                few = {name: x[:batch] for name, x in call.items()}
                feeds = [few, few, call, call, call]
                found = list(pool.map(lambda who, x, old: who.run(x, old), everyone, feeds, states))
                states = [state for _, state in found]
                first, *others = (output for output, _ in found)
                outputs = [first, *(as_subject(manifest, o) for o in others)]
                end += steps_of(call) if manifest.states else 1
                with undisturbed():  # a call counts whole or not at all
                    tallies.add(outputs, states, end)
                    if manifest.forecast:
                        tallies.add_forecast(outputs[:2], seen_by(rollout, number, batch))
                done += steps_of(call)
                if progress is not None:
                    progress("comparing", done, total, "steps")


def steps_of(call: Feeds) -> int:
    """Length of the first input."""
    return int(next(iter(call.values())).shape[1])


def seen_by(rollout: Rollout, number: int, batch: int) -> Seen:
    """What call ``number`` of the rollout has seen of the series, and what later calls bring."""
    name = next(iter(rollout[0]))
    parts = [call[name][:batch] for call in rollout]
    later = parts[number + 1 :]
    seen = np.concatenate(parts[: number + 1], axis=-1)
    return seen, np.concatenate(later, axis=-1) if later else None


def compare_ragged(runners: Runners, inputs: Array, manifest: Manifest) -> list[TensorResult]:
    """One batch of rows of different lengths, against each row alone.

    Returns one result per output and state, named ``ragged {name}``.
    """
    name = manifest.inputs[0].name
    longest = min(inputs.shape[1], _RAGGED_STEPS)
    rows = inputs.shape[0]
    lengths = np.array([longest - (row * longest) // (2 * rows) for row in range(rows)], np.int32)
    together, states = runners.subject.run({name: inputs[:, :longest], LENGTHS: lengths})
    tallies = Tallies(manifest)
    for row, length in enumerate(lengths):
        alone = [
            runner.run({name: inputs[row : row + 1, :length]})
            for runner in (
                runners.reference, runners.float64, runners.recurrent, runners.chunkwise,
            )
        ]  # fmt: skip
        own_row, steps = slice(row, row + 1), slice(0, length)
        if manifest.logits == "last":
            steps = slice(-1, None)
        mine = {key: value[own_row, steps] for key, value in together.items()}
        outputs = [mine, *(as_subject(manifest, output) for output, _ in alone)]
        my_states = {key: value[own_row] for key, value in states.items()}
        tallies.add(outputs, [my_states, *(state for _, state in alone)], int(length))
    return tallies.results("ragged ")


def as_subject(manifest: Manifest, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Of a bundle that yields the last step alone, the last step."""
    if manifest.logits != "last":
        return outputs
    return {name: output[:, -1:] for name, output in outputs.items()}


def relative_distance(first: Runner, second: Runner, feeds: Mapping[str, Array]) -> float:
    """Largest difference of two runners' outputs over ``feeds``, relative to the largest value.

    Used to show that the reader's float64 model and upstream's are one function.
    """
    (a, _), (b, _) = first.run(feeds), second.run(feeds)
    return max(errors(a[name], b[name]).largest / (magnitude(b[name]) or 1.0) for name in b)
