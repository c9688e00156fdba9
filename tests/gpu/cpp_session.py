"""An engine in the C++ session library beside Python's session: the same outputs, call by call.

python -m tests.gpu.cpp_session BUNDLE ENGINE
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np

import xlstm_export as xe
from tests.session.c_session import Array, CSession, CStates

BATCH, STEPS = 2, (9, 1, 1, 1)


def rtx_library() -> Path:
    """TensorRT-RTX's, in its Python package."""
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("no tensorrt_rtx_libs: pip install tensorrt-rtx")
    return Path(spec.submodule_search_locations[0]) / "libtensorrt_rtx.so.1"


def compare(bundle: str, engine: str) -> None:
    """Continue both; ends with what differs."""
    python = xe.open(bundle, engine=engine)
    ours = CSession(bundle, runtime=rtx_library(), engine=engine)
    manifest, random = python.manifest, np.random.default_rng(0)
    tensor, size = manifest.inputs[0], manifest.outputs[0].shape[-1]
    states: CStates | None = None
    theirs = None
    # a call that goes on is for graphs that take states
    lengths = STEPS if manifest.takes_states else STEPS[:1]
    for steps in lengths:
        values: Array = random.standard_normal((BATCH, steps, *map(int, tensor.shape[2:])))
        if manifest.is_language_model:
            values = random.integers(0, int(size), (BATCH, steps))
        feeds = {tensor.name: values.astype(tensor.dtype)}
        outputs, states = ours.run(feeds, states)
        expected, theirs = python.run(feeds, theirs)
        for name, array in expected.items():
            if not np.array_equal(outputs[name], array, equal_nan=True):
                sys.exit(f"{name}: C++ and Python differ, {steps} steps")
    print(f"{len(lengths)} calls are Python's: {ours.describe()}")


if __name__ == "__main__":
    compare(*sys.argv[1:])
