"""Run a bundle's graph in whichever onnxruntime is first on the path: ``FEEDS.npz OUT.npz MODEL…``.

Called in a process of its own by ``test_ort_versions``; prints the version that ran.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

from xlstm_export.runtime.ort import OrtSession


def run(feeds_file: str, out_file: str, models: list[str]) -> None:
    """Write the outputs of every model, named ``{index}/{output}``; ours as ``{index}/session``."""
    with np.load(feeds_file) as file:
        feeds = dict(file)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    found = {}
    for index, model in enumerate(models):
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        for name, value in zip(names, session.run(names, feeds), strict=True):
            found[f"{index}/{name}"] = value
        ours = OrtSession(Path(model).parent, threads=1)
        found[f"{index}/session"] = ours.run({"input_ids": feeds["input_ids"]})[0]["logits"]
    np.savez(out_file, **found)
    print(ort.__version__)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.argv[3:])
