"""States as a value: a mapping by key, checked against the bundle that takes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from tests.runtime.test_feeds import LM
from xlstm_export.bundle.manifest import StateInfo
from xlstm_export.errors import BundleError, InputError
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.states import States, check_states

KEYS = {"0.mlstm.C": (2, 3), "0.mlstm.m": (2,), "1.conv.x": (4, 5)}
MANIFEST = replace(
    LM,
    states=tuple(
        StateInfo(key, f"past.{key}", f"present.{key}", ("batch", *sizes), "float32", "zeros")
        for key, sizes in KEYS.items()
    ),
)


def test_zeros_are_the_bundles_states() -> None:
    states = States.zeros(MANIFEST, 3)
    assert {key: array.shape for key, array in states.items()} == {
        key: (3, *sizes) for key, sizes in KEYS.items()
    }
    assert {array.dtype.name for array in states.values()} == {"float32"}
    assert not any(array.any() for array in states.values())
    assert (len(states), states.batch) == (3, 3)
    assert states.nbytes == 3 * 4 * (6 + 2 + 20)
    assert repr(states) == "States(3 tensors, batch 3, 336 bytes)"
    check_states(MANIFEST, states, 3)


def test_no_states_are_no_rows() -> None:
    assert (States({}).batch, States({}).nbytes, len(States({}))) == (0, 0, 0)


def test_a_state_that_starts_otherwise_is_refused() -> None:
    odd = replace(MANIFEST, states=(replace(MANIFEST.states[0], init="identity"),))
    with pytest.raises(BundleError, match=r"0\.mlstm\.C starts as 'identity'"):
        States.zeros(odd, 1)


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_state_is_named(key: str) -> None:
    states = {k: v for k, v in States.zeros(MANIFEST, 2).items() if k != key}
    with pytest.raises(InputError, match=f"state {key} is missing; give every state, or none"):
        check_states(MANIFEST, states, 2)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_state_of_another_size_is_named(key: str, axis: int) -> None:
    shape = [2, *KEYS[key]]
    shape[axis] += 1
    states = {**States.zeros(MANIFEST, 2), key: np.zeros(shape, np.float32)}
    with pytest.raises(InputError) as caught:
        check_states(MANIFEST, states, 2)
    assert str(caught.value) == (
        f"state {key}: shape {shape}, where this batch of 2 needs {[2, *KEYS[key]]}"
    )


def test_a_state_of_another_rank_is_named() -> None:
    states = {**States.zeros(MANIFEST, 2), "0.mlstm.m": np.float32(0)}
    with pytest.raises(InputError, match=r"state 0\.mlstm\.m: shape \[\], where"):
        check_states(MANIFEST, states, 2)


def test_states_of_another_batch_are_refused() -> None:
    with pytest.raises(InputError, match="where this batch of 3 needs"):
        check_states(MANIFEST, States.zeros(MANIFEST, 2), 3)


def test_an_unknown_state_is_named() -> None:
    states = {**States.zeros(MANIFEST, 2), "9.mlstm.C": np.zeros((2, 1))}
    with pytest.raises(InputError, match=r"state 9\.mlstm\.C: the bundle has none of that name"):
        check_states(MANIFEST, states, 2)


def test_a_state_that_is_no_array_is_named() -> None:
    states = {**States.zeros(MANIFEST, 2), "0.mlstm.m": [[1.0], [2.0, 3.0]]}
    with pytest.raises(InputError, match=r"state 0\.mlstm\.m: cannot be read as an array"):
        check_states(MANIFEST, states, 2)


def test_a_state_may_be_lists() -> None:
    check_states(MANIFEST, {**States.zeros(MANIFEST, 1), "0.mlstm.m": [[1.0, 2.0]]}, 1)


@pytest.mark.parametrize("value", ["a", None, 1j], ids=["text", "objects", "complex"])
def test_a_state_that_is_no_numbers_is_named(library: Library, value: Any) -> None:
    session = OrtSession(library.bundle(BY_ID["stack-mixed"]), threads=1)
    feeds = {"input_ids": [[1]]}
    _, states = session.run(feeds)
    odd = {**states, "0.mlstm.m": np.full(states["0.mlstm.m"].shape, value)}
    with pytest.raises(InputError, match=r"state 0\.mlstm\.m: holds .*, expected numbers"):
        session.run(feeds, odd)


@pytest.mark.parametrize("states", [5, "states", [1, 2]], ids=str)
def test_states_go_by_key(states: Any) -> None:
    with pytest.raises(
        InputError, match=f"states are given by key.*not as {type(states).__name__}"
    ):
        check_states(MANIFEST, states, 1)


def test_a_session_checks_what_it_is_given_and_takes_any_mapping(library: Library) -> None:
    session = OrtSession(library.bundle(BY_ID["stack-mixed"]), threads=1)
    feeds = {"input_ids": np.array([[1, 2], [3, 4]])}
    _, states = session.run(feeds)
    assert isinstance(states, States)
    before = {key: array.copy() for key, array in states.items()}
    expected, after = session.run(feeds, states)
    wide = {key: array.astype(np.float64) for key, array in states.items()}
    got, again = session.run(feeds, wide)
    np.testing.assert_array_equal(got["logits"], expected["logits"])
    for key, array in before.items():
        np.testing.assert_array_equal(states[key], array)
        np.testing.assert_array_equal(again[key], after[key])
    with pytest.raises(InputError, match="where this batch of 1 needs"):
        session.run({"input_ids": [[1]]}, states)
    with pytest.raises(InputError, match="is missing"):
        session.run(feeds, {})


def test_a_closed_session_says_so(library: Library) -> None:
    session = OrtSession(library.bundle(BY_ID["stack-mixed"]), threads=1)
    session.close()
    session.close()
    with pytest.raises(InputError, match="closed: open the bundle again"):
        session.run({"input_ids": [[1]]})
