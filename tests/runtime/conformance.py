"""What every backend's session must do with states: the one list that all of them are held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlstm_export.errors import InputError
from xlstm_export.runtime import ort
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Session
from xlstm_export.runtime.states import States

VOCABULARY = 199


class BoundSetting(ort.Setting):
    """As on a GPU, with the host's memory in place of its."""

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def device(self) -> str:
        return "cpu"

    def open(self, onnxruntime: object, model: bytes | str) -> object:
        return onnxruntime.InferenceSession(  # type: ignore[attr-defined]
            model, self.options, providers=self.providers
        )


class GraphSetting(BoundSetting):
    """The same, where decode steps are to be replayed as graphs."""

    @property
    def captures(self) -> bool:
        return True


def bound(bundle: Path, library: Path | None = None, graphs: bool = False) -> OrtSession:
    """The session that binds its inputs and outputs, as the one on a GPU does.

    Operators are by ``library`` where one is given. With ``graphs`` steps go as to be captured.
    """
    plain = ort.session_setting

    def setting(runtime: Any, threads: int | None, native: bool, *_: object) -> ort.Setting:
        made = plain(runtime, threads, native and library is None)
        if library is not None:
            made.options.register_custom_ops_library(str(library))
        kind = GraphSetting if graphs else BoundSetting
        return kind(made.options, made.providers, made.operators)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ort, "session_setting", setting)
        return OrtSession(bundle, threads=1, cuda_graph=graphs)


def ids(batch: int, steps: int, seed: int = 0) -> Any:
    """Token ids [batch, steps]."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, (batch, steps))


def assert_equal(got: Any, expected: Any) -> None:
    """The same keys in one order, the same bits."""
    assert list(got) == list(expected)
    for key in expected:
        np.testing.assert_array_equal(np.asarray(got[key]), np.asarray(expected[key]), key)


def go_on(session: Session, states: Any, seed: int = 7) -> tuple[Any, States]:
    """Logits and states after one token more in every row."""
    outputs, after = session.run({"input_ids": ids(states.batch, 1, seed)}, states)
    return np.asarray(outputs["logits"]).copy(), after


def check_states_are_values(session: Session, folder: Path) -> None:
    """Kept, forked, saved, restored: each goes on bit for bit, and none is changed by it."""
    _, states = session.run({"input_ids": ids(4, 9)})
    assert isinstance(states, States)
    assert (states.batch, states.nbytes) == (4, sum(np.asarray(a).nbytes for a in states.values()))
    before = {key: np.array(states[key]) for key in states}
    fork = states.copy()
    path = folder / "states.safetensors"
    states.save(path, session.manifest)
    restored = States.load(path, session.manifest)
    logits, after = go_on(session, states)
    for other in (states, fork, restored, fork.copy(), before):
        same, also = go_on(session, other if isinstance(other, States) else States(other))
        np.testing.assert_array_equal(same, logits)
        assert_equal(also, after)
    for kept in (states, fork, restored):
        assert_equal(kept, before)


def check_rows(session: Session) -> None:
    """Rows come and go: what is gathered is what was there, and steps as it did."""
    _, states = session.run({"input_ids": ids(4, 9)})
    host = {key: np.array(states[key]) for key in states}
    assert_equal(states.rows([3, 1, 1]), {key: a[[3, 1, 1]] for key, a in host.items()})
    parts = [states.rows([row]) for row in (2, 0)]
    joined = parts[0].join(parts[1], states)
    assert type(joined) is type(states)
    assert_equal(joined, {key: a[[2, 0, 0, 1, 2, 3]] for key, a in host.items()})
    logits, after = go_on(session, states)
    again, then = session.run({"input_ids": ids(4, 1, 7)[[2, 0, 0, 1, 2, 3]]}, joined)
    np.testing.assert_array_equal(again["logits"], logits[[2, 0, 0, 1, 2, 3]])
    assert_equal(then.rows([2, 3, 4, 5]), after)


def check_reset(session: Session) -> None:
    """A row that is reset begins anew; those beside it do not notice."""
    _, states = session.run({"input_ids": ids(3, 9)})
    fresh = states.reset([1])
    zeros = States.zeros(session.manifest, 1)
    expected = States(dict(states.rows([0]))).join(zeros, States(dict(states.rows([2]))))
    assert_equal(fresh, expected)
    logits, _ = go_on(session, fresh)
    same, _ = go_on(session, expected)
    np.testing.assert_array_equal(logits, same)
    assert_equal(states.reset([]), states)


def check_last_step(session: Session) -> None:
    """The last step alone is what the last step of all is."""
    every, states = session.run({"input_ids": ids(2, 7)})
    one, same = session.run({"input_ids": ids(2, 7)}, last=True)
    np.testing.assert_array_equal(one["logits"], every["logits"][:, -1:])
    assert_equal(same, states)


def check_choices(session: Session) -> None:
    """The token is the last logits' arg max, and the states are those of ``run``."""
    feeds = {"input_ids": ids(3, 7)}
    outputs, states = session.run(feeds, last=True)
    chosen, same = session.choose(feeds)
    assert_equal(same, states)
    for _ in range(3):
        logits = np.asarray(outputs["logits"])[:, -1]
        tokens = np.argmax(logits, axis=1)
        assert [choice.token for choice in chosen] == tokens.tolist()
        assert [choice.logit for choice in chosen] == logits[range(3), tokens].tolist()
        outputs, after = session.run({"input_ids": tokens[:, None]}, states, last=True)
        chosen, states = session.choose({"input_ids": tokens[:, None]}, states)
        assert_equal(states, after)


def check_choices_of_ragged_rows(session: Session) -> None:
    """Each row's token is the one after its own last step."""
    feeds = {"input_ids": ids(3, 7), "sequence_lengths": np.array([4, -1, 1], np.int32)}
    outputs, states = session.run(feeds, last=True)
    chosen, same = session.choose(feeds)
    assert_equal(same, states)
    expected = np.asarray(outputs["logits"])[:, -1].argmax(axis=1)
    assert [choice.token for choice in chosen] == expected.tolist()


def check_refusals(session: Session) -> None:
    """Rows that are not there, and states of others."""
    _, states = session.run({"input_ids": ids(2, 3)})
    for wrong in ([2], [-1], [0, 5]):
        with pytest.raises(InputError, match=r"row -?\d: there are 2, counted from 0"):
            states.rows(wrong)
        with pytest.raises(InputError, match="there are 2"):
            states.reset(wrong)
    with pytest.raises(InputError, match="whole numbers"):
        states.rows([0.5])  # type: ignore[list-item]
    key = next(iter(states))
    with pytest.raises(InputError, match="different models"):
        states.join(States({key: np.asarray(states[key])}))
    odd = States({k: np.zeros((1, *a.shape[1:], 2), a.dtype) for k, a in states.items()})
    with pytest.raises(InputError, match="different models"):
        states.join(odd)
    with pytest.raises(InputError, match="where this batch of 2 needs"):
        session.run({"input_ids": ids(2, 1)}, states.rows([0]))


def conform(session: Session, folder: Path) -> None:
    """Every check on ``session``, a language model's of ``VOCABULARY`` ids."""
    check_states_are_values(session, folder)
    for check in (check_rows, check_reset, check_last_step, check_choices, check_refusals):
        check(session)
    if session.manifest.ragged:
        check_choices_of_ragged_rows(session)
