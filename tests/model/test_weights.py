"""Lazy weights: views and joins read nothing until asked."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from xlstm_export.model.weights import Array, Weight, below, concatenate


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


def test_values_are_changed_in_float32_whatever_is_stored() -> None:
    weight, _ = _weight(3, dtype="bfloat16")
    changed = weight.with_values(lambda w: 1 + w / 1024)
    assert changed.dtype == "float32"
    assert changed.load().dtype == np.float32
    np.testing.assert_array_equal(changed.load(), 1 + np.arange(3, dtype=np.float32) / 1024)


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
