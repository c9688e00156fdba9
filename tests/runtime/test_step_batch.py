"""Rows that come and go get, bit for bit, what they get alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.model_cases import BY_ID, VOCABULARY, Library
from tests.runtime.trt.host_device import stand_in
from xlstm_export.errors import BundleError, InputError
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Array, Session
from xlstm_export.runtime.states import States
from xlstm_export.runtime.step_batch import StepBatch

MOST = 64


@pytest.fixture
def bundle(library: Library) -> Path:
    return library.bundle(BY_ID["stack-mixed"])


def prompt_of(row: int) -> list[int]:
    """A prompt of 1 to 40 ids; some are longer than a piece of the sessions used here."""
    random = np.random.default_rng(1000 + row)
    return [int(i) for i in random.integers(0, VOCABULARY, random.integers(1, 41))]


def next_token(logits: Array) -> int:
    return int(np.argmax(logits))


def alone(session: Session, prompt: list[int], steps: int) -> list[Array]:
    """Logits after the prompt and after each of ``steps`` tokens, of the only row of a batch."""
    batch = StepBatch(session)
    row, logits = batch.join(prompt), {}
    while row not in logits:
        logits = batch.step()
    found = [logits[row].copy()]
    for _ in range(steps):
        found.append(batch.step({row: next_token(found[-1])})[row].copy())
    return found


@pytest.mark.parametrize(("case", "steps"), [("large-odd-sizes", 5_000), ("stack-mixed", 800)])
def test_64_rows_at_random_get_what_they_get_alone(library: Library, case: str, steps: int) -> None:
    """Rows join and leave at random; one of 25 is run again alone."""
    session = OrtSession(library.bundle(BY_ID[case]), threads=1)
    session.most_steps = 16
    random, batch = np.random.default_rng(3), StepBatch(session, MOST)
    heard: dict[int, list[Array]] = {}
    left, most, logits = set(), 0, {}
    for _ in range(steps):
        for row in [row for row in (*batch.rows, *batch.joining) if random.random() < 0.02]:
            batch.leave(row)
            left.add(row)
            logits.pop(row, None)
        if len(batch) < MOST and random.random() < 0.9:
            expected = batch._next
            assert batch.join(prompt_of(expected)) == expected
        last = {row: heard[row][-1] for row in batch.rows}
        logits = batch.step({row: next_token(last[row]) for row in batch.rows})
        for row, found in logits.items():
            heard.setdefault(row, []).append(found.copy())
        most = max(most, len(batch))
    assert most >= 40
    assert len(left) > steps // 5
    for row in [*sorted(heard)[::25], *batch.rows[:2]]:
        found = alone(session, prompt_of(row), len(heard[row]) - 1)
        for step, (got, expected_logits) in enumerate(zip(heard[row], found, strict=True)):
            np.testing.assert_array_equal(got, expected_logits, f"row {row}, step {step}")


def test_choices_are_the_logits_arg_max(bundle: Path) -> None:
    """Of rows that join at several times, one by a prompt of several pieces."""
    session = OrtSession(bundle, threads=1)
    session.most_steps = 16
    told, chosen = StepBatch(session), StepBatch(session)
    tokens: dict[int, int] = {}
    for number in range(12):
        for batch in (told, chosen):
            if number in (0, 3, 4):
                batch.join(np.arange(1, 6 + 10 * number).tolist())
        logits, choices = told.step(tokens), chosen.choose(tokens)
        assert {row: choice.token for row, choice in choices.items()} == {
            row: next_token(found) for row, found in logits.items()
        }
        assert all(choices[row].logit == logits[row].max() for row in logits)
        tokens |= {row: choice.token for row, choice in choices.items()}
    assert len(tokens) == 3


@pytest.mark.parametrize("backend", ["bodies", "engine"])
def test_engines_and_bodies_too(bundle: Path, backend: str) -> None:
    """The engine is a stand-in, which computes as the session does."""
    session: Session = stand_in(bundle)[0]
    if backend == "bodies":
        session = OrtSession(bundle, threads=1, native=False)
    batch = StepBatch(session, 5)
    rows = [batch.join(prompt_of(row)) for row in range(5)]
    heard: dict[int, list[Array]] = {row: [] for row in rows}
    while min(map(len, heard.values())) < 6:
        tokens = {row: next_token(heard[row][-1]) for row in batch.rows}
        for row, found in batch.step(tokens).items():
            heard[row].append(found.copy())
    for row in rows:
        for got, expected in zip(
            heard[row], alone(session, prompt_of(row), len(heard[row]) - 1), strict=True
        ):
            np.testing.assert_array_equal(got, expected)


def test_a_batch_of_one_is_a_session_of_one(bundle: Path) -> None:
    session = OrtSession(bundle, threads=1)
    batch = StepBatch(session, 1)
    row = batch.join([5, 6, 7])
    first = batch.step()[row].copy()
    second = batch.step({row: 9})[row]
    outputs, states = session.run({"input_ids": [[5, 6, 7]]})
    np.testing.assert_array_equal(first, outputs["logits"][0, -1])
    outputs, _ = session.run({"input_ids": [[9]]}, states)
    np.testing.assert_array_equal(second, outputs["logits"][0, -1])


def test_a_fork_goes_on_as_its_origin(bundle: Path) -> None:
    batch = StepBatch(OrtSession(bundle, threads=1))
    row = batch.join([1, 2, 3])
    batch.step()
    fork = batch.join([8], batch.states(row))
    found = batch.step({row: 8})
    # the one by a step beside another row, the other as a prompt of one token
    np.testing.assert_allclose(found[row], found[fork], atol=1e-5)
    before = batch.states(fork)
    again = batch.join([4], before)
    np.testing.assert_allclose(batch.step({row: 4, fork: 4})[fork], found_alone(batch, before),
                               atol=1e-5)  # fmt: skip
    assert again in batch.rows


def found_alone(batch: StepBatch, states: States) -> Array:
    """Logits of the session itself after token 4."""
    outputs, _ = batch.session.run({"input_ids": np.array([[4]])}, states)
    return np.asarray(outputs["logits"][0, -1])


def test_long_prompts_do_not_hold_the_others_up(bundle: Path) -> None:
    session = OrtSession(bundle, threads=1)
    session.most_steps = 4
    batch = StepBatch(session)
    short = batch.join([1])
    assert set(batch.step()) == {short}
    long = batch.join(list(range(11)))
    assert (batch.rows, batch.joining, len(batch)) == ((short,), (long,), 2)
    found = [set(batch.step({short: 2})) for _ in range(3)]
    assert found == [{short}, {short}, {short, long}]
    assert batch.rows == (short, long)


def test_where_it_raises_nothing_has_stepped(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that cannot be computed, and rows that cannot: afterwards all goes on as before."""
    session = OrtSession(bundle, threads=1)
    batch, quiet = StepBatch(session), StepBatch(session)
    run = session.run
    for one in (batch, quiet):
        one.join([1, 2])
        one.step()
        one.join([3, 4])
    for wrong in (1, 2):  # rows of the call that fails

        def broken(
            feeds: dict[str, Array], *rest: object, rows: int = wrong, **last: bool
        ) -> object:
            if len(feeds["input_ids"]) == rows:
                raise RuntimeError("no memory left")
            return run(feeds, *rest, **last)  # type: ignore[arg-type]

        monkeypatch.setattr(session, "run", broken)
        with pytest.raises(RuntimeError):
            batch.step({0: 5})
        assert (batch.rows, batch.joining) == ((0,), (1,))
    monkeypatch.setattr(session, "run", run)
    got, expected = batch.step({0: 5}), quiet.step({0: 5})
    assert set(got) == {0, 1}
    for row, logits in expected.items():
        np.testing.assert_array_equal(got[row], logits)


def test_what_does_not_fit_is_named(bundle: Path, library: Library) -> None:
    session = OrtSession(bundle, threads=1)
    batch = StepBatch(session, 2)
    for prompt in ([], [[1]], [1.5], "text"):
        with pytest.raises(InputError, match="the prompt: give one token id or more"):
            batch.join(prompt)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="prompt: token id 199 is outside"):
        batch.join([199])
    _, states = session.run({"input_ids": [[1], [2]]})
    with pytest.raises(InputError, match="states of 2 rows, where one row joins"):
        batch.join([1], states)
    first = next(iter(states))
    with pytest.raises(InputError, match="is missing; give every state"):
        batch.join([1], States({first: states.rows([0])[first]}))
    with pytest.raises(InputError, match=f"state {first}: shape"):
        batch.join([1], States({k: a[:1, ..., :1] for k, a in states.items()}))
    rows = [batch.join([1]), batch.join([2])]
    with pytest.raises(InputError, match="the batch is full: it takes 2 rows"):
        batch.join([3])
    with pytest.raises(InputError, match="row 1: is not in this batch, or its prompt"):
        batch.states(rows[1])
    batch.step()
    with pytest.raises(InputError, match="row 0 has no token"):
        batch.step({})
    with pytest.raises(InputError, match="row 1 is not stepping"):
        batch.step({0: 1, 1: 1})
    with pytest.raises(InputError, match="tokens: token id -1"):
        batch.step({0: -1})
    batch.leave(0)
    batch.leave(1)
    assert len(batch) == 0
    with pytest.raises(InputError, match="row 0: is not in this batch"):
        batch.leave(0)
    with pytest.raises(InputError, match="most_rows"):
        StepBatch(session, 0)
    with pytest.raises(BundleError, match="no language model"):
        StepBatch(OrtSession(library.bundle(BY_ID["stack-bare"])))
