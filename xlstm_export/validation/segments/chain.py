"""A rollout that goes through a model part by part: everyone over all of it before the next part.

A layer needs of a step only what the layers below it made of that step, and its own states of the
step before. So each part runs over the whole rollout, each participant on what it made itself in
the part before, and nothing else of it is in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.model.spec import HIDDEN_IN, HIDDEN_OUT
from xlstm_export.model.storage import Storage
from xlstm_export.runtime.session import Array, Runner
from xlstm_export.validation.checks.rollout import Tallies, as_subject, steps_of
from xlstm_export.validation.inputs import Feeds, Rollout
from xlstm_export.validation.participants import Participants
from xlstm_export.validation.tally import TensorResult
from xlstm_export.validation.tolerance import errors, magnitude

_SUBJECT, _REFERENCE, _FLOAT64 = range(3)


class Chain:
    """``rollouts`` of the model that ``manifest`` describes, as far as they have come.

    Of the rows subject and reference see the first ``batch`` and the others all. What leaves a part
    is kept in ``folder``, call by call. ``workers`` participants run at once.
    """

    def __init__(
        self, manifest: Manifest, rollouts: Sequence[Rollout], batch: int, workers: int,
        folder: Path,
    ) -> None:  # fmt: skip
        self.distance = 0.0
        """Of our float64 model from upstream's after the last part, relative."""
        self._manifest, self._rollouts, self._batch = manifest, rollouts, batch
        self._workers, self._folder = workers, folder
        self._tallies = Tallies(manifest)

    @property
    def steps(self) -> int:
        """Of all calls together."""
        return sum(steps_of(call) for rollout in self._rollouts for call in rollout)

    def stream(self, everyone: Participants) -> Array | None:
        """What comes to the part of ``everyone`` [rows, T, D], exact, in the bundle's precision.

        None at the beginning, where inputs are drawn.
        """
        if everyone.spec.inputs[0].name != HIDDEN_IN:
            return None
        calls = range(len(self._rollouts[0]))
        whole = np.concatenate([self._take(_FLOAT64, 0, call) for call in calls], axis=1)
        kind = Storage(everyone.manifest.dtype).numpy
        stream: Array = whole.astype(kind).astype(np.float32)
        return stream

    def run(self, everyone: Participants) -> None:
        """Take the rollouts through one more part, that of ``everyone``."""
        runners = everyone.runners
        who: list[Runner] = [
            runners.subject, runners.reference, runners.float64, runners.recurrent,
            runners.chunkwise,
        ]  # fmt: skip
        self.distance = 0.0
        with ThreadPoolExecutor(self._workers) as pool:
            for number, rollout in enumerate(self._rollouts):
                states: Sequence[Any] = [None] * len(who)
                end = 0
                for index, call in enumerate(rollout):
                    feeds = self._feeds(everyone, number, index, call)
                    found = list(pool.map(lambda it, x, old: it.run(x, old), who, feeds, states))
                    states = [after for _, after in found]
                    end += steps_of(call)
                    self._add([output for output, _ in found], states, number, index, end)

    def results(self) -> list[TensorResult]:
        """One for each output and state of the model, once all parts are through."""
        return self._tallies.results()

    def first_feeds(self, everyone: Participants) -> Feeds:
        """What the reference is given in the first call of the part."""
        return self._feeds(everyone, 0, 0, self._rollouts[0][0])[_REFERENCE]

    def _feeds(self, everyone: Participants, rollout: int, index: int, call: Feeds) -> list[Feeds]:
        if everyone.spec.inputs[0].name == HIDDEN_IN:
            return [{HIDDEN_IN: self._take(who, rollout, index)} for who in range(5)]
        few = {name: x[: self._batch] for name, x in call.items()}
        return [few, few, call, call, call]

    def _add(
        self, outputs: list[Mapping[str, Array]], states: Sequence[Mapping[str, Array]],
        rollout: int, index: int, end: int,
    ) -> None:  # fmt: skip
        (name,) = outputs[_REFERENCE]
        exact, own = outputs[_REFERENCE][name], outputs[_FLOAT64][name][: self._batch]
        apart = errors(own, exact).largest / (magnitude(exact) or 1.0)
        self.distance = max(self.distance, apart)
        judged: list[Mapping[str, Array]] = [{}] * len(outputs)
        if name == HIDDEN_OUT:
            for who, output in enumerate(outputs):
                np.save(self._path(who, rollout, index), output[name])
        else:
            judged = [outputs[0], *(as_subject(self._manifest, o) for o in outputs[1:])]
        self._tallies.add(judged, states, end)

    def _take(self, who: int, rollout: int, index: int) -> Array:
        array: Array = np.load(self._path(who, rollout, index))
        return array

    def _path(self, who: int, rollout: int, index: int) -> Path:
        return self._folder / f"{who}-{rollout}-{index}.npy"
