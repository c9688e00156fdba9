"""The model of Triton's Python backend: any bundle, states kept here by correlation id.

``triton_python_backend_utils`` is the server's own module: this one is imported there alone.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.runtime.open import Execution, open_session
from xlstm_export.runtime.session import Array, Session
from xlstm_export.runtime.states import States

_START, _END = 1, 2
"""TRITONSERVER_REQUEST_FLAG_SEQUENCE_START and _END."""


class Sequences:
    """The states of every sequence, and calls for several of them at once.

    Rows of one step are computed together, at least two, and longer inputs one by one: a sequence
    gets the same bits whatever else is served (``StepBatch`` says why).
    """

    def __init__(self, session: Session, idle_seconds: float) -> None:
        self.session = session
        self.idle_seconds = idle_seconds
        self._states: dict[Any, tuple[States, float]] = {}

    def __len__(self) -> int:
        return len(self._states)

    def run(
        self, asked: Sequence[tuple[Any, int, Mapping[str, Array]]]
    ) -> list[Mapping[str, Array] | str]:
        """Outputs of each of ``asked``: (correlation id, flags, feeds of one row); or its error."""
        self._forget_idle()
        found: list[Mapping[str, Array] | str] = [""] * len(asked)
        steps = [n for n, (_, _, feeds) in enumerate(asked) if _is_step(self.session, feeds)]
        groups = [steps] if steps else []
        groups += [[n] for n in range(len(asked)) if n not in steps]
        for group in groups:
            self._run_group(asked, group, found)
        return found

    def _run_group(
        self, asked: Sequence[tuple[Any, int, Mapping[str, Array]]], group: list[int],
        found: list[Mapping[str, Array] | str],
    ) -> None:  # fmt: skip
        several: list[States] = []
        kept: list[int] = []
        for number in group:
            key, flags, _ = asked[number]
            if flags & _START:
                several.append(States.zeros(self.session.manifest, 1))
            elif key in self._states:
                several.append(self._states[key][0])
            else:
                found[number] = f"sequence {key}: is not known; start it with sequence_start"
                continue
            kept.append(number)
        if not kept:
            return
        try:
            outputs, after = self._call([asked[number][2] for number in kept], several)
        except Exception as error:  # whatever the session raises
            if len(kept) == 1:
                found[kept[0]] = str(error)
            else:  # one of them is wrong, which the others are not to hear of
                for number in kept:
                    self._run_group(asked, [number], found)
            return
        for at, number in enumerate(kept):
            key, flags, _ = asked[number]
            found[number] = {name: array[at : at + 1] for name, array in outputs.items()}
            self._states.pop(key, None)
            if not flags & _END:
                self._states[key] = after.rows([at]), time.monotonic()

    def _call(
        self, feeds: list[Mapping[str, Array]], several: list[States]
    ) -> tuple[Mapping[str, Array], States]:
        """Outputs and states of all rows; a step of one beside an idle row."""
        idle = int(_is_step(self.session, feeds[0]) and len(feeds) == 1)
        several = several + [States.zeros(self.session.manifest, 1)] * idle
        feeds = feeds + feeds[:1] * idle
        together = {name: np.concatenate([f[name] for f in feeds]) for name in feeds[0]}
        return self.session.run(together, several[0].join(*several[1:]))

    def _forget_idle(self) -> None:
        """Sequences that were not heard of for long: their clients went without an end."""
        oldest = time.monotonic() - self.idle_seconds
        for key in [key for key, (_, used) in self._states.items() if used < oldest]:
            del self._states[key]


def _is_step(session: Session, feeds: Mapping[str, Array]) -> bool:
    return feeds[session.manifest.inputs[0].name].shape[1] == 1 and not session.manifest.ragged


class TritonPythonModel:
    """What Triton calls: the bundle in the folder ``bundle`` beside model.py."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the bundle."""
        self._utils: Any = importlib.import_module("triton_python_backend_utils")
        folder = Path(args["model_repository"]) / args["model_version"] / "bundle"
        config = json.loads(args["model_config"])
        backend = "ort-cuda" if args["model_instance_kind"] == "GPU" else "auto"
        self.session = open_session(folder, Execution(backend=backend))
        self.sequences: Sequences | None = None
        if self.session.manifest.carries:
            idle = int(config["sequence_batching"]["max_sequence_idle_microseconds"]) / 1e6
            self.sequences = Sequences(self.session, idle)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """An answer for each of ``requests``, which may be of many sequences."""
        feeds = [self._feeds(request) for request in requests]
        if self.sequences is None:
            return [self._answer(self._alone(one)) for one in feeds]
        asked = [
            (request.correlation_id(), int(request.flags()), one)
            for request, one in zip(requests, feeds, strict=True)
        ]
        return [self._answer(found) for found in self.sequences.run(asked)]

    def finalize(self) -> None:
        """Give memory back."""
        self.session.close()

    def _alone(self, feeds: Mapping[str, Array]) -> Mapping[str, Array] | str:
        try:
            return self.session.run(feeds)[0]
        except Exception as error:  # whatever the session raises: the next request is another
            return str(error)

    def _feeds(self, request: Any) -> dict[str, Array]:
        given = {t.name(): t.as_numpy() for t in request.inputs()}
        for tensor in self.session.manifest.inputs:  # of one axis: Triton has a second, of size 1
            if len(tensor.shape) == 1 and tensor.name in given:
                given[tensor.name] = given[tensor.name].reshape(-1)
        return given

    def _answer(self, found: Mapping[str, Array] | str) -> Any:
        if isinstance(found, str):
            return self._utils.InferenceResponse([], self._utils.TritonError(found))
        cut = {name: array if array.ndim > 1 else array[:, None] for name, array in found.items()}
        tensors = [
            self._utils.Tensor(name, np.ascontiguousarray(array)) for name, array in cut.items()
        ]
        return self._utils.InferenceResponse(tensors)
