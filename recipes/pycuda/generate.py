"""Generate with an engine from PyCUDA: ids, logits and states are arrays on the GPU.

    python recipes/pycuda/generate.py OUT ENGINE 1,2,3 --steps 20

OUT is the bundle of a language model, ENGINE an engine of it (a file, or a name such as
tensorrt_rtx-sm89). Needs a GPU, the extra ``rtx`` or ``tensorrt``, and the extra ``pycuda``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

try:
    # the primary context is the one that CUDA's runtime uses, and so TensorRT and the session;
    # pycuda.autoinit would make a second one, whose addresses mean nothing there
    import pycuda.autoprimaryctx  # noqa: F401
    from pycuda.gpuarray import GPUArray, to_gpu
except ImportError as error:
    sys.exit(f"error: {error}: pip install pycuda")

import xlstm_export as xe


def as_gpuarray(array: Any) -> GPUArray:
    """The same memory as PyCUDA's array, which keeps it alive."""
    return GPUArray(array.shape, array.dtype, gpudata=array.address, base=array)


def generate(bundle: Path, engine: str, prompt: list[int], steps: int) -> list[int]:
    """The likeliest ``steps`` ids after ``prompt``. Raises xe.XlstmExportError."""
    session: Any = xe.open(bundle, engine)
    if not session.manifest.is_language_model:
        raise xe.BundleError(f"{bundle}: takes embeddings, not tokens")
    vocabulary = session.manifest.outputs[0].shape[-1]
    wrong = [token for token in prompt if not 0 <= token < vocabulary]
    if wrong:  # on the GPU nobody checks them
        raise xe.InputError(f"token id {wrong[0]} is outside the vocabulary of {vocabulary}")
    states, chosen = None, []
    most = session.most_steps
    parts = [prompt[start : start + most] for start in range(0, len(prompt), most)]
    for _ in range(steps):
        for part in parts:
            tokens = to_gpu(np.array([part], np.int64))
            outputs, states = session.run_on_device({"input_ids": tokens}, states)
        logits = outputs["logits"]
        # PyCUDA's default stream and the session's keep order, so nothing is waited for by hand
        last = as_gpuarray(logits)[0, logits.shape[1] - 1]
        chosen.append(int(np.argmax(last.get())))  # of one step only, copied to the host
        parts = [chosen[-1:]]
    return chosen


def token_ids(words: str) -> list[int]:
    """Of 1,2,3; argparse says what is wrong with others."""
    return [int(word) for word in words.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description="Greedy generation through PyCUDA")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("engine")
    parser.add_argument("ids", type=token_ids, help="prompt, such as 1,2,3")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    try:
        print(*generate(given.bundle, given.engine, given.ids, given.steps))
    except xe.XlstmExportError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
