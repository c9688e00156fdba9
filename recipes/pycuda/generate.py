"""Generate with an engine from PyCUDA: ids, logits and states stay on the GPU.

    python recipes/pycuda/generate.py OUT ENGINE 1,2,3 --steps 20

OUT is a bundle, ENGINE an engine of it (a file, or a name such as tensorrt_rtx-sm89). Needs a GPU,
the extra ``rtx`` or ``tensorrt``, and the extra ``pycuda``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

# the primary context is the one that CUDA's runtime uses, and so TensorRT and the session;
# pycuda.autoinit would make a second one, whose addresses mean nothing there
import pycuda.autoprimaryctx  # noqa: F401
from pycuda.gpuarray import GPUArray, to_gpu

import xlstm_export as xe


def as_gpuarray(array: Any) -> GPUArray:
    """The memory of a session's array as PyCUDA's, which keeps it alive."""
    return GPUArray(array.shape, array.dtype, gpudata=array.address, base=array)


def generate(bundle: Path, engine: str, prompt: list[int], steps: int) -> list[int]:
    """The likeliest ``steps`` ids after ``prompt``."""
    session: Any = xe.open(bundle, engine)
    tokens, states, chosen = to_gpu(np.array([prompt], np.int64)), None, []
    for _ in range(steps):
        outputs, states = session.run_on_device({"input_ids": tokens}, states)
        logits = outputs["logits"]
        # PyCUDA's default stream and the session's keep order, so nothing is waited for by hand
        last = as_gpuarray(logits)[0, logits.shape[1] - 1]
        chosen.append(int(np.argmax(last.get())))
        tokens = to_gpu(np.array([chosen[-1:]], np.int64))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description="Greedy generation through PyCUDA")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("engine")
    parser.add_argument("ids", help="prompt, such as 1,2,3")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    prompt = [int(word) for word in given.ids.split(",")]
    print(*generate(given.bundle, given.engine, prompt, given.steps))


if __name__ == "__main__":
    main()
