"""``python run_networks.py FEEDS OUT MODEL...``: models in the ONNX Runtime that is imported.

FEEDS has the inputs of model i as "i/{name}". Of one that carries states, two calls over the first
six steps and the rest are run as well.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime as ort


def run(path: str, feeds: dict[str, Any]) -> dict[str, Any]:
    """Outputs by name, and "parts/{name}" of calls with carried states."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    past = {
        i.name: np.zeros((len(next(iter(feeds.values()))), *i.shape[1:]), np.float32)
        for i in session.get_inputs() if i.name.startswith("past.")
    }  # fmt: skip
    whole = dict(zip(names, session.run(names, feeds | past), strict=True))
    found = {name: whole[name] for name in names if not name.startswith("present.")}
    if past:
        ends = []
        for part in (slice(0, 6), slice(6, None)):
            given = {name: x[:, part] for name, x in feeds.items()}
            after = dict(zip(names, session.run(names, given | past), strict=True))
            past = {f"past.{n[8:]}": x for n, x in after.items() if n.startswith("present.")}
            ends.append(after)
        for name in list(found):
            parts = [end[name] for end in ends]
            has_time = found[name].ndim == 3
            found[f"parts/{name}"] = np.concatenate(parts, 1) if has_time else parts[-1]
    return found


if __name__ == "__main__":
    feeds_file, out, *models = sys.argv[1:]
    with np.load(feeds_file) as file:
        feeds = dict(file)
    results = {}
    for index, model in enumerate(models):
        own = {n.partition("/")[2]: x for n, x in feeds.items() if n.startswith(f"{index}/")}
        results |= {f"{index}/{name}": x for name, x in run(model, own).items()}
    np.savez(out, **results)
    print(ort.__version__)
