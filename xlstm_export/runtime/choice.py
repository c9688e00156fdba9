"""The likeliest next token of each row, chosen where its logits lie."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.errors import BundleError

Array = npt.NDArray[Any]

# ArgMax says nothing of ties on a GPU: the least of the ids that have the largest logit, in
# float32, which holds every id below 2^24. NaN counts as the largest, as numpy's argmax has it.
_GRAPH = """
<ir_version: 9, opset_import: ["": 18]>
likeliest (float[B,T,V] x, int64[B,2] indices) => (int64[B,1] token, float[B,1] logit) {
  last = GatherND (x, indices)
  is_number = Equal (last, last)
  infinity = Constant <value_float: float = inf> ()
  known = Where (is_number, last, infinity)
  axis = Constant <value_ints: ints = [1]> ()
  largest = ReduceMax (known, axis)
  is_largest = Equal (known, largest)
  candidates = Where (is_largest, ids, infinity)
  least = ReduceMin (candidates, axis)
  token = Cast <to = 7> (least)
  logit = GatherElements <axis = 1> (last, token)
}
"""


class Choice(NamedTuple):
    """A row's likeliest next token and its logit; the lowest id of those that are equal.

    NaN counts as the largest: a logit that is no finite number tells that the model failed.
    """

    token: int
    logit: float


def check_chooses(bundle: Path, manifest: Manifest) -> None:
    """Raise BundleError where the bundle has no tokens to choose from."""
    if not manifest.is_language_model:
        raise BundleError(f"{bundle}: is no language model: it has no token to choose")


def likeliest(logits: Array) -> list[Choice]:
    """Of each row of ``logits`` [B,V]."""
    tokens = np.argmax(logits, axis=1)
    return paired(tokens, np.take_along_axis(logits, tokens[:, None], axis=1))


def likeliest_on_device(value: Any, steps: Array, provider: str) -> list[Choice]:
    """Of step ``steps`` [B] of each row of ``value``, ONNX Runtime's float32 [B,T,V]."""
    session = _chooser(int(value.shape()[2]), provider)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", value)
    places = np.stack([np.arange(len(steps)), steps], axis=1)
    binding.bind_cpu_input("indices", np.ascontiguousarray(places, np.int64))
    for name in ("token", "logit"):
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    return paired(*(found.numpy() for found in binding.get_outputs()))


def paired(tokens: Array, logits: Array) -> list[Choice]:
    """A Choice for each row of the ids and of their logits."""
    sides = zip(tokens.ravel().tolist(), logits.ravel().tolist(), strict=True)
    return [Choice(token, logit) for token, logit in sides]


@lru_cache(maxsize=8)
def _chooser(vocabulary: int, provider: str) -> Any:
    """A session of ``_GRAPH`` by ``provider``."""
    import onnx
    import onnxruntime

    model = onnx.parser.parse_model(_GRAPH)
    ids = np.arange(vocabulary, dtype=np.float32)[None]
    model.graph.initializer.append(onnx.numpy_helper.from_array(ids, "ids"))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider])
