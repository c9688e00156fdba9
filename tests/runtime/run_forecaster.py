"""Run a forecaster's graphs in whichever onnxruntime is first on the path: ``FEEDS OUT MODEL…``.

Called in a process of its own by ``test_forecaster_versions``; prints the version that ran.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

from tests.ops.op_sessions import LEVELS, Setting, make_session
from xlstm_export.runtime.ort import OrtSession


def run(feeds_file: str, out_file: str, models: list[str]) -> None:
    """Write the quantiles of both graphs: ours as ``{index}/session``, else ``{index}/{level}``."""
    with np.load(feeds_file) as file:
        begin, more = file["begin"], file["more"]
    found = {}
    for index, model in enumerate(models):
        for level in LEVELS:
            first = make_session(model, Setting(level))
            second = make_session(str(Path(model).with_name("continue.onnx")), Setting(level))
            names = [output.name for output in first.get_outputs()]
            made = dict(zip(names, first.run(names, {"context": begin}), strict=True))
            past = {n.replace("present.", "past."): x for n, x in made.items() if "present." in n}
            (rest,) = second.run(["quantiles"], {"context": more, **past})
            found[f"{index}/{level}"] = np.concatenate([made["quantiles"], rest], axis=1)
        ours = OrtSession(Path(model).parent, threads=1)
        head, states = ours.run({"context": begin})
        tail, _ = ours.run({"context": more}, states)
        found[f"{index}/session"] = np.concatenate([head["quantiles"], tail["quantiles"]], axis=1)
    np.savez(out_file, **found)
    print(ort.__version__)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.argv[3:])
