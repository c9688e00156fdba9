"""Lazy weights: views and joins read nothing until asked."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from xlstm_export.model.weights import Array, Weight, below, concatenate, zeros_like


def _weight(*shape: int, dtype: str = "float32", key: str = "k") -> tuple[Weight, list[str]]:
    loads: list[str] = []
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)

    def load() -> Array:
        loads.append(key)
        return np.arange(np.prod(shape)).reshape(shape).astype(kind)

    return Weight(shape, dtype, (key,), load), loads


def test_a_view_knows_its_shape_without_reading() -> None:
    weight, loads = _weight(4, 6)
    view = weight.with_view(lambda w: w[1:3].T)
    assert view.shape == (6, 2)
    assert view.sources == ("k",)
    assert not loads
    np.testing.assert_array_equal(view.load(), np.arange(24).reshape(4, 6)[1:3].T)


@pytest.mark.parametrize(
    ("stored", "computed"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32"),
     ("float64", "float64")],
)  # fmt: skip
def test_an_offset_is_added_in_float32_whatever_is_stored(stored: str, computed: str) -> None:
    """1000 + 1/1024 is a number of float32, and of no half type."""
    weight, loads = _weight(3, dtype=stored)
    shifted = weight.with_offset(1000 + 1 / 1024)
    assert (shifted.dtype, shifted.offset, shifted.shape) == (computed, 1000 + 1 / 1024, (3,))
    assert shifted.sources == weight.sources
    assert not loads
    numbers = shifted.load()
    assert numbers.dtype == np.dtype(computed)
    np.testing.assert_array_equal(numbers, np.arange(3.0) + 1000 + 1 / 1024)


def test_offsets_add_up_and_none_is_none() -> None:
    weight, _ = _weight(3, dtype="bfloat16")
    assert weight.with_offset(0.0) is weight
    twice = weight.with_offset(1.0).with_offset(2.0)
    assert twice.offset == 3.0
    np.testing.assert_array_equal(twice.load(), np.arange(3.0) + 3)


def test_a_view_of_a_shifted_tensor_stays_shifted() -> None:
    weight, _ = _weight(2, 3)
    view = weight.with_offset(1.0).with_view(lambda w: w[1])
    assert (view.offset, view.shape) == (1.0, (3,))
    np.testing.assert_array_equal(view.load(), np.array([4.0, 5.0, 6.0]))


def test_parts_of_a_matrix_are_stored_alike() -> None:
    (a, _), (b, _) = _weight(2), _weight(2)
    half = a.kept_as("float16")
    assert concatenate([half, b.kept_as("float16")], axis=0).kept == "float16"
    with pytest.raises(ValueError, match="'float16'"):
        concatenate([half, b], axis=0)


def test_zeros_are_stored_as_their_model() -> None:
    weight, loads = _weight(2, dtype="bfloat16")
    zeros = zeros_like(weight.kept_as("float16"), 3, 1)
    assert (zeros.shape, zeros.kept, zeros.sources) == ((3, 1), "float16", ())
    np.testing.assert_array_equal(zeros.load(), np.zeros((3, 1), np.float32))
    assert not loads


def test_concatenate_joins_shapes_sources_and_numbers() -> None:
    (a, seen_a), (b, _) = _weight(2, 3, key="a"), _weight(4, 3, key="b")
    joined = concatenate([a, b], axis=0)
    assert joined.shape == (6, 3)
    assert joined.sources == ("a", "b")
    assert not seen_a
    np.testing.assert_array_equal(joined.load(), np.concatenate([a.load(), b.load()]))


@pytest.mark.parametrize("wide", ["float32", "float64"])
def test_concatenate_keeps_the_widest_type(wide: str) -> None:
    (a, _), (b, _) = _weight(2, dtype="float16"), _weight(2, dtype=wide)
    assert concatenate([a, b], axis=0).dtype == wide
    assert concatenate([a, b], axis=0).load().dtype == np.dtype(wide)


def test_half_types_side_by_side_become_float32() -> None:
    (a, _), (b, _) = _weight(2, dtype="float16"), _weight(2, dtype="bfloat16")
    joined = concatenate([a, b], axis=0)
    assert joined.dtype == joined.load().dtype.name == "float32"


def test_below_strips_one_prefix_only() -> None:
    weight, _ = _weight(1)
    found = below({"blocks.1.q": weight, "blocks.10.q": weight, "head": weight}, "blocks.1")
    assert list(found) == ["q"]
