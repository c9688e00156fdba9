"""Run a bundle's graph in whichever onnxruntime is first on the path: ``FEEDS.npz OUT.npz MODEL…``.

Called in a process of its own by ``test_ort_versions``; prints the version that ran.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from tests.ops.op_sessions import LEVELS, Setting, make_session, run_in_place
from xlstm_export.runtime.ort import OrtSession

PIECES = (3, 1, 64, 2)
"""Steps of the calls that carry the states in one buffer for input and output."""


def run(feeds_file: str, out_file: str, models: list[str]) -> None:
    """Write the logits of every model: ours as ``{index}/session``, else ``{index}/{level}/...``.

    At each level of graph optimisation, ``whole`` is one call, ``pieces`` are ``PIECES`` where the
    model takes token ids.
    """
    with np.load(feeds_file) as file:
        feeds = dict(file)
    found = {}
    for index, model in enumerate(models):
        for level in LEVELS:
            session = make_session(model, Setting(level))
            found[f"{index}/{level}/whole"] = session.run(["logits"], feeds)[0]
            if "input_ids" in feeds:
                found[f"{index}/{level}/pieces"] = run_pieces(session, feeds)
        ours = OrtSession(Path(model).parent, threads=1)
        given = {tensor.name: feeds[tensor.name] for tensor in ours.manifest.inputs}
        found[f"{index}/session"] = ours.run(given)[0]["logits"]
    np.savez(out_file, **found)
    print(ort.__version__)


def run_pieces(
    session: ort.InferenceSession, feeds: dict[str, np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any]:
    """The logits of ``feeds`` in ``PIECES``: each state is written over the one before."""
    states = {
        name: ort.OrtValue.ortvalue_from_numpy(value.copy())
        for name, value in feeds.items()
        if name.startswith("past.")
    }
    carried = {name: name.replace("past.", "present.") for name in states}
    logits = []
    for end, steps in zip(np.cumsum(PIECES), PIECES, strict=True):
        ids = np.ascontiguousarray(feeds["input_ids"][:, end - steps : end])
        given = {"input_ids": ort.OrtValue.ortvalue_from_numpy(ids), **states}
        values = run_in_place(session, ["logits", *carried.values()], given, carried)
        logits.append(np.array(values[0].numpy()))
    return np.concatenate(logits, axis=1)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.argv[3:])
