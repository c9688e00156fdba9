"""An engine's calls replayed as CUDA graphs beside the same calls queued anew: the same bits.

python -m tests.gpu.graph_session BUNDLE ENGINE
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import xlstm_export as xe
from xlstm_export.runtime.trt.graphs import GraphedEngine
from xlstm_export.runtime.trt.session import TrtSession

BATCHES, STEPS = (2, 1), (9, *[1] * 24)


def compare(plain: TrtSession, graphed: TrtSession) -> str:
    """Continue both; what was done. Ends with what differs, or where nothing was captured."""
    manifest, random = plain.manifest, np.random.default_rng(0)
    calls = STEPS if manifest.takes_states and manifest.states else STEPS[:1] * 6
    for batch in BATCHES:
        theirs = ours = None
        for steps in calls:
            feeds = {t.name: _numbers(manifest, t, batch, steps, random) for t in manifest.inputs}
            expected, theirs = plain.run(feeds, theirs if manifest.takes_states else None)
            outputs, ours = graphed.run(feeds, ours if manifest.takes_states else None)
            for name, array in [*expected.items(), *theirs.items()]:
                got = outputs[name] if name in outputs else ours[name]
                if not np.array_equal(got, array, equal_nan=True):
                    sys.exit(f"{name}: differs by a graph, batch {batch}, {steps} steps")
    engine = graphed._begin.engine
    assert isinstance(engine, GraphedEngine)
    if not engine._graphs:
        sys.exit("no call was captured")
    return f"{len(calls)} calls of {len(BATCHES)} batches by {len(engine._graphs)} graphs"


def _numbers(manifest: Any, tensor: Any, batch: int, steps: int, random: Any) -> Any:
    sizes = {"batch": batch, "sequence": steps, "length": steps}
    shape = [sizes.get(size, steps) if isinstance(size, str) else size for size in tensor.shape]
    if tensor.dtype.startswith("int"):
        return random.integers(0, manifest.vocabulary or 2, shape).astype(tensor.dtype)
    return random.standard_normal(shape).astype(tensor.dtype)


if __name__ == "__main__":
    bundle, engine = sys.argv[1:]
    sessions: list[Any] = [
        xe.open(bundle, engine=engine, cuda_graph=wanted) for wanted in (False, True)
    ]
    print(compare(*sessions))
