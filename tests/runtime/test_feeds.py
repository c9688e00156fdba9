"""What a session is given: every mistake is an error that names it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from xlstm_export.bundle.manifest import (
    LENGTHS,
    Manifest,
    OpsInfo,
    SourceInfo,
    StateInfo,
    TensorInfo,
)
from xlstm_export.errors import InputError, XlstmExportError
from xlstm_export.runtime.feeds import check_ids, prepare_feeds, prepare_lengths

IDS = TensorInfo("input_ids", "int64", ("batch", "sequence"))
EMBEDS = TensorInfo("inputs_embeds", "float32", ("batch", "sequence", 4))
LM = Manifest(
    format_version=1,
    family="test",
    dtype="float32",
    opset=18,
    ops=OpsInfo("ai.xlstm", 1),
    inputs=(IDS,),
    outputs=(TensorInfo("logits", "float32", ("batch", "sequence", 11)),),
    states=(StateInfo("0.a.b", "past.0.a.b", "present.0.a.b", ("batch", 2), "float32", "zeros"),),
    source=SourceInfo("test", ""),
    versions={},
    runs_on=(),
)
RAGGED = replace(LM, inputs=(IDS, TensorInfo(LENGTHS, "int32", ("batch",))), ragged=True)
STACK = replace(
    LM,
    inputs=(EMBEDS,),
    outputs=(TensorInfo("last_hidden_state", "float32", ("batch", "sequence", 4)),),
)
TWO = replace(STACK, inputs=(EMBEDS, TensorInfo("other", "float32", ("batch", 3))))
HIDDEN = replace(LM, outputs=STACK.outputs)
"""Takes ids, and does not tell of how many."""


class Unreadable:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("on another device")


def refusal(manifest: Manifest, feeds: Any) -> str:
    """The message; such an error is a ValueError as well, as a library's callers expect."""
    with pytest.raises(InputError) as caught:
        prepare_feeds(manifest, feeds)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, XlstmExportError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "input_ids: is missing; give int64 [batch, sequence]"),
        ({"ids": [[1]]}, "ids: no input of this bundle; it takes input_ids"),
        ({"input_ids": [[1]], "x": 1}, "x: no input of this bundle; it takes input_ids"),
        ({"input_ids": [[1]], 3: 1}, "3: no input of this bundle"),
        ({"input_ids": [[1]], LENGTHS: [1]}, f"{LENGTHS}: is for bundles of export --ragged"),
        ([[1, 2]], "inputs are given by name, such as {'input_ids': array}, not as list"),
        (np.zeros((1, 2), np.int64), "not as ndarray"),
        (None, "not as NoneType"),
    ],
)
def test_names(feeds: Any, words: str) -> None:
    assert words in refusal(LM, feeds)


def test_every_input_is_asked_for_but_the_lengths() -> None:
    embeds = np.zeros((2, 1, 4))
    assert "other: is missing; give float32 [batch, 3]" in refusal(TWO, {"inputs_embeds": embeds})
    assert set(prepare_feeds(RAGGED, {"input_ids": [[1]]})) == {"input_ids", LENGTHS}


@pytest.mark.parametrize(
    "shape", [(), (3,), (1, 2, 3), (0, 3), (2, 0)], ids=lambda s: "x".join(map(str, s)) or "scalar"
)
def test_ids_of_another_shape(shape: tuple[int, ...]) -> None:
    message = refusal(LM, {"input_ids": np.zeros(shape, np.int64)})
    assert message == (
        f"input_ids: shape {list(shape)}, expected [batch, sequence], no dimension 0"
    )


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 3), (1, 2, 5), (1, 2, 4, 1), (1, 0, 4)])
def test_embeddings_of_another_shape(shape: tuple[int, ...]) -> None:
    message = refusal(STACK, {"inputs_embeds": np.zeros(shape, np.float32)})
    assert f"inputs_embeds: shape {list(shape)}, expected [batch, sequence, 4]" in message


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([[1.0]], "float64"),
        ([[True]], "bool"),
        ([["a"]], "<U1"),
        ([[None]], "object"),
        ([[1j]], "complex128"),
        ([[2**70]], "object"),
        (np.ones((1, 1), ml_dtypes.bfloat16), "bfloat16"),
    ],
)
def test_ids_of_another_type(value: Any, found: str) -> None:
    message = refusal(LM, {"input_ids": value})
    assert message == f"input_ids: holds {found}, expected whole numbers"


@pytest.mark.parametrize(
    ("value", "found"), [(["a"], "<U1"), ([None], "object"), ([1j], "complex")]
)
def test_embeddings_of_another_type(value: list[Any], found: str) -> None:
    message = refusal(STACK, {"inputs_embeds": [[value * 4]]})
    assert message.startswith(f"inputs_embeds: holds {found}")
    assert message.endswith("expected numbers")


@pytest.mark.parametrize("value", [[[1], [2, 3]], Unreadable()], ids=["ragged lists", "unreadable"])
def test_what_is_no_array(value: Any) -> None:
    assert "input_ids: cannot be read as an array (" in refusal(LM, {"input_ids": value})


@pytest.mark.parametrize("value", [-1, 11, 12, -(2**63), 2**63 - 1])
def test_ids_outside_the_vocabulary(value: int) -> None:
    message = refusal(LM, {"input_ids": [[1, 2], [3, value]]})
    assert message == f"input_ids: token id {value} is outside the vocabulary of 11"


def test_ids_too_large_for_the_graph() -> None:
    """An unsigned id must not turn negative, or into another, on its way."""
    ids = np.array([[2**64 - 1]], np.uint64)
    for manifest in (LM, HIDDEN):
        assert f"token id {2**64 - 1} is outside" in refusal(manifest, {"input_ids": ids})


def test_a_vocabulary_that_is_not_told_has_no_end() -> None:
    check_ids("prompt", np.array([0, 10**9]), HIDDEN)
    with pytest.raises(InputError, match=r"prompt: token id -1 is outside the vocabulary$"):
        check_ids("prompt", np.array([-1]), HIDDEN)


def test_rows_of_several_inputs_agree() -> None:
    feeds = {"inputs_embeds": np.zeros((2, 1, 4)), "other": np.zeros((3, 3))}
    assert refusal(TWO, feeds) == "other: batch is 3, where inputs_embeds has 2"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_ids_of_every_whole_type_are_taken(dtype: type) -> None:
    ids = np.array([[0, 1], [9, 10]], dtype).T
    prepared = prepare_feeds(LM, {"input_ids": ids})["input_ids"]
    assert prepared.dtype == np.int64
    assert prepared.flags.c_contiguous
    np.testing.assert_array_equal(prepared, ids)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64, np.int64, np.uint8])
def test_embeddings_of_every_number_type_are_taken(dtype: Any) -> None:
    embeds = np.arange(8).reshape(1, 2, 4).astype(dtype)
    prepared = prepare_feeds(STACK, {"inputs_embeds": embeds})["inputs_embeds"]
    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(prepared, np.arange(8.0).reshape(1, 2, 4))


# --- lengths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "shape [], expected [2]"),
        ([3], "shape [1], expected [2]"),
        ([1, 2, 3], "shape [3], expected [2]"),
        ([[1, 2]], "shape [1, 2], expected [2]"),
        ([1.0, 2.0], "holds float64, expected whole numbers"),
        ([True, False], "holds bool, expected whole numbers"),
        (["1", "2"], "expected whole numbers"),
        ([[1], [2, 3]], "cannot be read as an array"),
    ],
)
def test_lengths_that_do_not_fit(value: Any, words: str) -> None:
    message = refusal(RAGGED, {"input_ids": np.zeros((2, 3), np.int64), LENGTHS: value})
    assert message.startswith(f"{LENGTHS}: ")
    assert words in message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [-1, -1]),
        ([0, 3], [0, 3]),
        ([-1, -7], [-1, -1]),
        ([2**40, 2**31 - 1], [2**31 - 1, 2**31 - 1]),
        ([-(2**63), 2**63 - 1], [-1, 2**31 - 1]),
        (np.array([2**64 - 1, 5], np.uint64), [2**31 - 1, 5]),
        (np.array([200, 5], np.uint8), [200, 5]),
        (np.array([-1, 5], np.int8), [-1, 5]),
    ],
)
def test_lengths_keep_their_meaning_as_int32(given: Any, expected: list[int]) -> None:
    """Below 0 and beyond the end are all steps, whatever integer says so."""
    lengths = prepare_lengths(given, 2)
    assert lengths.dtype == np.int32
    assert lengths.tolist() == expected
