"""Inputs and outputs in the files of Polygraphy: what it saved goes in, what it loads comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, InputError
from xlstm_export.runtime.session import Array, Session
from xlstm_export.runtime.states import States

INPUTS_FILE, OUTPUTS_FILE = "inputs.json", "outputs.json"


def load_inputs(path: Path) -> list[dict[str, Array]]:
    """Arrays by name of each iteration that ``polygraphy run --save-inputs`` saved.

    Raises InputError for a file that holds none, BackendUnavailableError without Polygraphy.
    """
    library = _library()
    try:
        with library.quiet():
            found: Any = library.json.load_json(str(path))
    except OSError:
        raise
    except Exception as error:  # the library raises its own type, and those of what it calls
        raise InputError(f"{path}: not inputs that Polygraphy saved ({error})") from error
    found = [found] if isinstance(found, Mapping) else found
    is_list = isinstance(found, Sequence) and all(isinstance(feed, Mapping) for feed in found)
    if not is_list or not found:
        raise InputError(f"{path}: not inputs that Polygraphy saved: a list of arrays by name")
    return [{str(name): np.asarray(array) for name, array in feed.items()} for feed in found]


def save_rollout(session: Session, calls: Sequence[Mapping[str, Array]], folder: Path) -> None:
    """Every graph input and output of ``calls``, each on the states of the one before.

    ``polygraphy run model.onnx --onnxrt --load-inputs inputs.json --load-outputs outputs.json``
    then compares. Raises BackendUnavailableError without Polygraphy, InputError for a bundle whose
    later calls are another graph's.
    """
    library, manifest = _library(), session.manifest
    if not manifest.takes_states:
        calls = calls[:1]
    states: Mapping[str, Array] | None = States.zeros(manifest, len(next(iter(calls[0].values()))))
    feeds, results = [], []
    for call in calls:
        given = {name: np.asarray(array) for name, array in call.items()}
        past = {}
        if manifest.takes_states and states is not None:
            past = {s.input: np.asarray(states[s.key]) for s in manifest.states}
        outputs, states = session.run(call, states if manifest.takes_states else None)
        present = {s.output: np.asarray(states[s.key]) for s in manifest.states}
        feeds.append({**given, **past})
        results.append(
            library.IterationResult(
                {**{n: np.asarray(x) for n, x in outputs.items()}, **present},
                runner_name="xlstm-export",
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    runs = library.RunResults()
    runs.append(("xlstm-export", results))
    with library.quiet():
        library.json.save_json(feeds, str(folder / INPUTS_FILE))
        runs.save(str(folder / OUTPUTS_FILE))


class _Polygraphy:
    """The parts of the library that are used."""

    def __init__(self) -> None:
        from polygraphy.logger import G_LOGGER

        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):  # it would speak on stderr
            from polygraphy import json
            from polygraphy.comparator import IterationResult, RunResults

        self.quiet: Any = lambda: G_LOGGER.verbosity(G_LOGGER.CRITICAL)
        self.json: Any = json
        self.IterationResult: Any = IterationResult
        self.RunResults: Any = RunResults


def _library() -> _Polygraphy:
    try:
        return _Polygraphy()
    except ImportError as error:
        raise BackendUnavailableError(
            f"Polygraphy's files need polygraphy, which is missing: {install('polygraphy')}"
        ) from error
