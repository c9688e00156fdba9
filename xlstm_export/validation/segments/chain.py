"""A rollout that goes through a model part by part: everyone over all of it before the next part.

A layer needs of a step only what the layers below it made of that step, and its own states of the
step before. So each part runs over the whole rollout, each participant on what it made itself in
the part before, and nothing else of it is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.model.spec import HIDDEN_IN, HIDDEN_OUT
from xlstm_export.model.storage import Storage
from xlstm_export.reference.threads import Sharing, torch_threads
from xlstm_export.runtime.session import Array, Runner
from xlstm_export.validation.behind import behind
from xlstm_export.validation.checks.rollout import Tallies, as_subject, steps_of
from xlstm_export.validation.inputs import Feeds, Rollout
from xlstm_export.validation.participants import Participants
from xlstm_export.validation.tally import TensorResult
from xlstm_export.validation.tolerance import errors, magnitude

Who = Literal["subject", "reference", "float64", "recurrent", "chunkwise"]
_WHO: tuple[Who, ...] = ("subject", "reference", "float64", "recurrent", "chunkwise")
Keep = Callable[[int, Array], Array]
_FEW: tuple[Who, ...] = ("subject", "reference")
"""Those that see the first rows alone."""


class Chain:
    """``rollouts`` of the model that ``manifest`` describes, as far as they have come.

    Of the rows subject and reference see the first ``batch`` and the others all. What leaves a part
    is kept in ``folder``, call by call; of the last part what ``keep`` makes of the number of the
    call in its rollout and the output, None: nothing. ``sharing`` says how many run at once.
    """

    def __init__(
        self, manifest: Manifest, rollouts: Sequence[Rollout], batch: int, sharing: Sharing,
        folder: Path, keep: Keep | None = None,
    ) -> None:  # fmt: skip
        self.distance = 0.0
        """Of our float64 model from upstream's after the last part, relative."""
        self._manifest, self._rollouts, self._batch = manifest, rollouts, batch
        self._sharing, self._folder, self._keep = sharing, folder, keep
        self._tallies = Tallies(manifest)

    def stream(self, everyone: Participants) -> Array | None:
        """What comes to the part of ``everyone`` [rows, T, D], exact, in the bundle's precision.

        None at the beginning, where inputs are drawn.
        """
        if everyone.spec.inputs[0].name != HIDDEN_IN:
            return None
        calls = range(len(self._rollouts[0]))
        whole = np.concatenate([self._take("float64", 0, call) for call in calls], axis=1)
        kind = Storage(everyone.manifest.dtype).numpy
        stream: Array = whole.astype(kind).astype(np.float32)
        return stream

    def run(self, everyone: Participants) -> None:
        """Take the rollouts through one more part, that of ``everyone``."""
        runners: dict[Who, Runner] = {
            "subject": everyone.subject, "float64": everyone.float64,
            "recurrent": everyone.recurrent, "chunkwise": everyone.chunkwise,
        }  # fmt: skip
        if everyone.oracle is not None:
            runners["reference"] = everyone.oracle
        self.distance = 0.0
        # a call is judged while the next one is computed
        with (
            torch_threads(self._sharing.each),
            ThreadPoolExecutor(self._sharing.workers) as pool,
            behind() as later,
        ):
            for number, rollout in enumerate(self._rollouts):
                states: dict[Who, Any] = dict.fromkeys(runners)
                end = 0
                for index, call in enumerate(rollout):
                    feeds = [self._feed(who, everyone, number, index) for who in runners]
                    found = pool.map(
                        lambda it, x, old: it.run(x, old), runners.values(), feeds, states.values()
                    )
                    outputs = dict(zip(runners, found, strict=True))
                    states = {who: after for who, (_, after) in outputs.items()}
                    end += steps_of(call)
                    later(self._add, outputs, number, index, end)

    def results(self) -> list[TensorResult]:
        """One for each output and state of the model, once all parts are through."""
        return self._tallies.results()

    def kept(self, who: Who) -> Iterator[Array]:
        """What was kept of the outputs of ``who``, call by call."""
        for number, rollout in enumerate(self._rollouts):
            for index in range(len(rollout)):
                yield self._take(who, number, index)

    def replay(self, who: Who) -> Replay:
        """``who`` as a runner of the same calls again, where the outputs were kept as they are."""
        name = self._manifest.outputs[0].name
        return Replay(who, ({name: output} for output in self.kept(who)))

    def first_feed(self, everyone: Participants) -> Feeds:
        """What the reference is given in the first call of the part."""
        return self._feed("reference", everyone, 0, 0)

    def _feed(self, who: Who, everyone: Participants, rollout: int, index: int) -> Feeds:
        name = everyone.spec.inputs[0].name
        if name == HIDDEN_IN:
            return {name: self._take(who, rollout, index)}
        rows = self._batch if who in _FEW else None
        return {name: self._rollouts[rollout][index][name][:rows]}

    def _add(
        self, found: dict[Who, tuple[Mapping[str, Array], Mapping[str, Array]]], rollout: int,
        index: int, end: int,
    ) -> None:  # fmt: skip
        if "reference" not in found:  # our float64 model is it
            exact, after = found["float64"]
            found["reference"] = _few(exact, self._batch), _few(after, self._batch)
        outputs = {who: output for who, (output, _) in found.items()}
        (name,) = outputs["float64"]
        right, own = outputs["reference"][name], outputs["float64"][name][: self._batch]
        apart = errors(own, right).largest / (magnitude(right) or 1.0)
        self.distance = max(self.distance, apart)
        is_end = name != HIDDEN_OUT
        for who, output in outputs.items():
            if not is_end:
                np.save(self._path(who, rollout, index), output[name])
            elif self._keep is not None:
                np.save(self._path(who, rollout, index), self._keep(index, output[name]))
        judged: list[Mapping[str, Array]] = [{}] * len(_WHO)
        if is_end:
            others = (as_subject(self._manifest, outputs[who]) for who in _WHO[1:])
            judged = [outputs["subject"], *others]
        self._tallies.add(judged, [found[who][1] for who in _WHO], end)

    def _take(self, who: Who, rollout: int, index: int) -> Array:
        array: Array = np.load(self._path(who, rollout, index))
        return array

    def _path(self, who: Who, rollout: int, index: int) -> Path:
        return self._folder / f"{who}-{rollout}-{index}.npy"


class Replay:
    """A runner that has run: ``outputs`` of one call after the other, whatever it is given."""

    def __init__(self, name: str, outputs: Iterator[Mapping[str, Array]]) -> None:
        self.name = name
        self._outputs = outputs

    def run(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None
    ) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        """As ``Runner.run``, but for the states, which are gone."""
        return next(self._outputs), {}


def _few(arrays: Mapping[str, Array], rows: int) -> dict[str, Array]:
    return {name: array[:rows] for name, array in arrays.items()}
