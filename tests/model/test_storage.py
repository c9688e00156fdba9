"""What a bundle's element type leaves of numbers, and what it refuses."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.model.layer import WeightSpec
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.model.spec import ModelSpec, hidden_states, token_ids
from xlstm_export.model.storage import Storage, rounded_tensors, rounded_to_bfloat16, stored
from xlstm_export.model.weights import Weight

NUMBERS = np.array([[1.0, 1 / 3], [-2.0, 1e-3]], np.float32)
TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
every_dtype = pytest.mark.parametrize("dtype", TYPES)


def weight(numbers: npt.NDArray[np.generic], *sources: str) -> Weight:
    return Weight(
        numbers.shape, numbers.dtype.name, sources or ("a.key",), numbers.copy, "model.safetensors"
    )


@every_dtype
def test_numbers_are_rounded_to_nearest(dtype: str) -> None:
    encoded = Storage(dtype).encode(weight(NUMBERS))
    assert encoded.dtype == Storage(dtype).numpy == np.dtype(TYPES[dtype])
    np.testing.assert_array_equal(encoded, NUMBERS.astype(TYPES[dtype]))


@every_dtype
def test_what_is_left_is_what_was_encoded(dtype: str) -> None:
    left = Storage(dtype).round_trip(weight(NUMBERS))
    assert left.dtype == np.float64
    np.testing.assert_array_equal(left, NUMBERS.astype(TYPES[dtype]).astype(np.float64))


def test_a_transposed_view_is_written_in_its_own_order() -> None:
    encoded = Storage("float32").encode(weight(NUMBERS).with_view(lambda a: a.T))
    assert encoded.flags.c_contiguous
    assert encoded.tobytes() == NUMBERS.T.copy().tobytes()


@every_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_the_checkpoints_fault(dtype: str, bad: float) -> None:
    damaged = weight(np.array([1.0, bad], np.float32), "a.key", "b.key")
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: tensor a\.key, b\.key holds NaN or infinite"
    ):
        Storage(dtype).encode(damaged)
    with pytest.raises(CheckpointError, match="holds NaN"):
        Storage(dtype).round_trip(damaged)


@pytest.mark.parametrize(
    ("dtype", "most", "cure"),
    [("float16", 65504.0, r"largest 65504\); export with --dtype bf16 or fp32"),
     ("float32", 3.4028234663852886e38, "exceeds float32"),
     ("bfloat16", 3.3895313892515355e38, "exceeds bfloat16")],
)  # fmt: skip
def test_numbers_beyond_the_type_are_refused(dtype: str, most: float, cure: str) -> None:
    """The largest fits; twice as much is not stored as infinity."""
    assert Storage(dtype).round_trip(weight(np.array([most, -most]))).tolist() == [most, -most]
    with pytest.raises(UnsupportedModelError, match=rf"tensor a\.key exceeds {dtype}"):
        Storage(dtype).encode(weight(np.array([2 * most])))
    with pytest.raises(UnsupportedModelError, match=cure):
        Storage(dtype).encode(weight(np.array([-2 * most])))


def test_what_stays_float32_stays_so_in_every_bundle() -> None:
    half, given = Storage("float16"), weight(NUMBERS)
    assert half.kept("a", WeightSpec((1,), stays_float32=True), given).kept == "float32"
    assert half.kept("a", WeightSpec((1,)), given).kept == "float16"


NORM = Norm("layer", 1e-5, 2)
SPEC = ModelSpec(
    "test",
    (token_ids(),),
    (("embedding", TokenEmbedding(2, 2)), ("block", Residual(NORM, NORM, "norm"))),
    (hidden_states(2),),
)


def test_each_weight_is_kept_as_its_layer_says() -> None:
    weights = {"embedding.weight": weight(NUMBERS), "norm.weight": weight(NUMBERS[0])}
    kept = {name: w.kept for name, w in stored(SPEC, weights, Storage("bfloat16")).items()}
    assert kept == {"embedding.weight": "bfloat16", "norm.weight": "float32"}


def test_a_reference_sees_the_tensors_as_a_bundle_leaves_them() -> None:
    """A norm stored as w - 1 is rounded as w: what is close to 0 is not close to 1."""
    tensors = {
        "table": weight(NUMBERS, "table"), "scale": weight(np.float32([1e-9, 0.5]), "scale"),
        "unused": weight(np.float64([0.1]), "unused"),
    }  # fmt: skip
    weights = {
        "embedding.weight": tensors["table"], "norm.weight": tensors["scale"].with_offset(1.0),
    }  # fmt: skip
    left = rounded_tensors(SPEC, weights, tensors, Storage("float16"))
    np.testing.assert_array_equal(left["table"], NUMBERS.astype(np.float16))
    np.testing.assert_array_equal(left["scale"], [0.0, 0.5])
    np.testing.assert_array_equal(left["unused"], [0.1])
    assert {array.dtype for array in left.values()} == {np.dtype(np.float64)}


@every_dtype
def test_rounding_to_bfloat16_comes_after_that_of_the_bundle(dtype: str) -> None:
    """0x1.01p0 + a little is a tie only once it is float16."""
    numbers = np.array([1.0 + 2.0**-8 + 2.0**-13, 1 / 3, -2.0], np.float32)
    kept = weight(numbers).kept_as(dtype)
    found = rounded_to_bfloat16(kept)
    assert (found.kept, found.shape) == (dtype, (3,))
    left = Storage(dtype).encode(found)
    expected = numbers.astype(TYPES[dtype]).astype(ml_dtypes.bfloat16).astype(TYPES[dtype])
    np.testing.assert_array_equal(left, expected)
