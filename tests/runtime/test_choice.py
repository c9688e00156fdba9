"""The likeliest token: equal ones, what is no number, and ONNX Runtime's graph that chooses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.model_cases import BY_ID, Library
from tests.runtime.conformance import bound
from tests.runtime.trt.host_device import stand_in
from xlstm_export.errors import BundleError
from xlstm_export.runtime.choice import Choice, likeliest, likeliest_on_device
from xlstm_export.runtime.ort import OrtSession

LOGITS = np.array(
    [
        [0, 3, 1, 3, 3],  # of equal ones the first
        [-5, -2, -9, -2, -4],
        [1, np.nan, np.inf, np.nan, 7],
        [-np.inf, -1, np.inf, 0, 2],
        [-np.inf] * 5,
    ],
    np.float32,
)
TOKENS = [1, 1, 1, 2, 0]


def on_device(logits: Any, steps: Any) -> list[Choice]:
    """By the graph that chooses on a GPU, here on the CPU."""
    value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(logits))
    return likeliest_on_device(value, np.asarray(steps), "CPUExecutionProvider")


def test_ties_and_what_is_no_number() -> None:
    for found in (likeliest(LOGITS), on_device(LOGITS[:, None], [0] * 5)):
        assert [choice.token for choice in found] == TOKENS
        expected = [LOGITS[row, token] for row, token in enumerate(TOKENS)]
        np.testing.assert_array_equal([choice.logit for choice in found], expected)
    assert math.isnan(likeliest(LOGITS)[2].logit)


def test_the_graph_chooses_as_numpy_does() -> None:
    """Of few values, so that many are equal, at a step of each row's own."""
    random = np.random.default_rng(0)
    for vocabulary in (1, 2, 50_304):
        logits = random.integers(-4, 4, (3, 5, vocabulary)).astype(np.float32)
        steps = np.array([4, 0, 2])
        assert on_device(logits, steps) == likeliest(logits[range(3), steps])


def test_a_vocabulary_beyond_float16_keeps_its_ids() -> None:
    logits = np.zeros((1, 1, 300_001), np.float32)
    logits[..., [299_999, 300_000]] = 1
    assert on_device(logits, [0]) == [Choice(299_999, 1.0)]


@pytest.mark.parametrize("backend", ["ort", "bound", "engine"])
def test_what_is_no_language_model_chooses_nothing(library: Library, backend: str) -> None:
    bundle = library.bundle(BY_ID["stack-bare"])
    session = {"ort": OrtSession, "bound": bound, "engine": lambda b: stand_in(b)[0]}[backend](
        bundle
    )
    with pytest.raises(BundleError, match="no language model: it has no token to choose"):
        session.choose({"inputs_embeds": np.zeros((1, 1, 16), np.float32)})
