"""The C++ session library beside Python's session: the same numbers, the same states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.families.tirex2_checkpoints import write_tirex2
from tests.model_cases import BY_ID, VOCABULARY, Library
from tests.session.c_session import (
    INPUT,
    MEMORY,
    OPTION,
    Array,
    CSession,
    CStates,
    SessionError,
    join,
)
from xlstm_export import pipeline
from xlstm_export.generation.forecast import forecast_series
from xlstm_export.generation.generate import generate_ids
from xlstm_export.generation.sampling import Sampling
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.states import States

CASES: list[tuple[str, dict[str, Any]]] = [
    ("hf-plain", {}),
    ("stack-mixed", {"ragged": True}),
    ("stack-mixed", {"state_names": "genai", "logits": "last"}),
    ("stack-mixed", {"dtype": "float16"}),
    ("stack-bare", {}),
]
IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def equal(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> None:
    """Bit for bit, and of the same type."""
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        assert ours[name].shape == array.shape, name
        assert ours[name].tobytes() == np.ascontiguousarray(array).tobytes(), name


def feeds_of(session: OrtSession, batch: int, steps: int, seed: int) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    (name, dtype, shape) = (
        session.manifest.inputs[0].name, session.manifest.inputs[0].dtype,
        session.manifest.inputs[0].shape,
    )  # fmt: skip
    sizes = (batch, steps, *(int(size) for size in shape[2:]))
    if dtype == "int64":
        return {name: random.integers(0, VOCABULARY, sizes)}
    return {name: random.standard_normal(sizes).astype(dtype)}


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(("case", "options"), CASES)
def test_calls_give_what_python_gives(
    library: Library, case: str, options: dict[str, Any], native: bool
) -> None:
    bundle = library.bundle(BY_ID[case], **options)
    ours, theirs = CSession(bundle, kernels=native), OrtSession(bundle, native=native, threads=1)
    ours_states: CStates | None = None
    theirs_states: Mapping[str, Array] | None = None
    for seed, steps in enumerate((7, 1, 1, 20)):
        feeds = feeds_of(theirs, 3, steps, seed)
        outputs, ours_states = ours.run(feeds, ours_states)
        expected, theirs_states = theirs.run(feeds, theirs_states)
        equal(outputs, expected)
        equal(ours_states.arrays(), theirs_states)
    assert ours_states is not None
    assert ours_states.batch == 3
    assert ours_states.nbytes == sum(array.nbytes for array in theirs_states.values())


def test_lengths_of_rows(library: Library) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"], ragged=True)
    ours, theirs = CSession(bundle), OrtSession(bundle, threads=1)
    feeds = feeds_of(theirs, 3, 6, 0) | {"sequence_lengths": np.array([6, 0, 2], np.int32)}
    outputs, states = ours.run(feeds)
    expected, expected_states = theirs.run(feeds)
    equal(outputs, expected)
    equal(states.arrays(), expected_states)


def test_what_a_bundle_is(library: Library) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"], state_names="genai")
    ours, manifest = CSession(bundle), OrtSession(bundle, threads=1).manifest
    assert ours.ends(0) == [("input_ids", np.int64, (-1, -1))]
    assert ours.ends(1) == [("logits", np.float32, (-1, -1, VOCABULARY))]
    assert [name for name, _, _ in ours.ends(2)] == [state.key for state in manifest.states]
    assert ours.describe().startswith("ONNX Runtime 1.")
    assert "native CPU kernels" in ours.describe()
    assert "function bodies" in CSession(bundle, kernels=False).describe()


@pytest.fixture(scope="module")
def session(library: Library) -> CSession:
    return CSession(library.bundle(BY_ID["stack-mixed"]))


@pytest.fixture(scope="module")
def states(session: CSession) -> CStates:
    """Of three rows, each different."""
    ids = np.random.default_rng(5).integers(0, VOCABULARY, (3, 9))
    return session.run({"input_ids": ids})[1]


def test_rows_are_chosen_joined_and_begun_again(session: CSession, states: CStates) -> None:
    arrays = states.arrays()
    equal(states.copy().arrays(), arrays)
    equal(states.rows([2, 0, 2]).arrays(), {k: a[[2, 0, 2]] for k, a in arrays.items()})
    joined = join([states.rows([1]), session.zeros(2), states])
    zeros = {key: np.zeros_like(array[:2]) for key, array in arrays.items()}
    equal(joined.arrays(), {k: np.concatenate([a[[1]], zeros[k], a]) for k, a in arrays.items()})
    begun = states.reset([1]).arrays()
    equal({k: a[[0, 2]] for k, a in begun.items()}, {k: a[[0, 2]] for k, a in arrays.items()})
    assert not any(array[1].any() for array in begun.values())
    equal(states.arrays(), arrays)


def test_a_fork_goes_on_by_itself(session: CSession, states: CStates) -> None:
    before = states.arrays()
    fork, token = states.copy(), {"input_ids": np.array([[1], [2], [3]])}
    first, _ = session.run(token, states)
    session.run({"input_ids": np.array([[7], [8], [9]])}, fork)
    again, _ = session.run(token, states)
    equal(first, again)
    equal(states.arrays(), before)


def test_a_row_gets_what_it_gets_alone(session: CSession, states: CStates) -> None:
    ids = np.array([[1], [2], [3]])
    together, _ = session.run({"input_ids": ids}, states)
    for row in range(3):
        alone, _ = session.run({"input_ids": ids[[row]]}, states.rows([row]))
        np.testing.assert_allclose(alone["logits"][0], together["logits"][row], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda s, _: s.zeros(0), "a batch of 0"),
        (lambda s, _: s.zeros(2**60), "too large"),
        (lambda _, states: states.rows([3]), "row 3 of a batch of 3"),
        (lambda _, states: states.rows([-1]), "row -1 of a batch"),
        (lambda _, states: states.rows([]), "a batch of 0"),
        (lambda _, states: states.reset([0, 7]), "row 7"),
        (lambda s, states: s.run({"input_ids": np.array([[1]])}, states), "of 3 rows"),
        (lambda _, __: join([]), "none to join"),
        (lambda s, _: s.run({}), "input_ids: is missing; give int64 [batch, sequence]"),
        (lambda s, _: s.run({"ids": np.array([[1]])}), "input_ids: is missing"),
        (lambda s, _: s.run({"input_ids": np.array([1])}), "shape [1], expected [batch, sequence]"),
        (lambda s, _: s.run({"input_ids": np.zeros((1, 0), np.int64)}), "no dimension 0"),
        (lambda s, _: s.run({"input_ids": np.array([[-1]])}), "id -1 is outside the vocabulary"),
        (lambda s, _: s.run({"input_ids": np.array([[199]])}), "id 199 is outside"),
        (lambda s, _: s.run({"input_ids": np.array([[1]], np.int32)}), "int32, expected int64"),
        (
            lambda s, _: s.run({
                "input_ids": np.array([[1]]), "sequence_lengths": np.array([1], np.int32),
            }),
            "sequence_lengths: is for bundles of export --ragged",
        ),
        (lambda s, _: s.generate([], 3), "the prompt is empty"),
        (lambda s, _: s.generate([1, 199], 3), "prompt: token id 199"),
        (lambda s, states: s.generate([1], 3, states=states), "of 3 rows"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    session: CSession, states: CStates, act: Any, told: str
) -> None:
    with pytest.raises(SessionError) as caught:
        act(session, states)
    assert told in str(caught.value)
    assert caught.value.status == INPUT


def test_states_are_of_their_session(library: Library, session: CSession, states: CStates) -> None:
    other = CSession(library.bundle(BY_ID["stack-mixed"]))
    with pytest.raises(SessionError, match="of another session"):
        other.run({"input_ids": np.array([[1]] * 3)}, states)
    with pytest.raises(SessionError, match="of different sessions"):
        join([states, other.zeros(1)])


def test_states_outlive_their_session(library: Library) -> None:
    session = CSession(library.bundle(BY_ID["hf-plain"]))
    outputs, states = session.run({"input_ids": np.array([IDS])})
    before = states.arrays()
    del session
    equal(states.copy().arrays(), before)
    assert outputs["logits"].shape[1] == len(IDS)


@pytest.mark.parametrize(("case", "options"), CASES[:4])
def test_generation_takes_pythons_ids(library: Library, case: str, options: dict[str, Any]) -> None:
    bundle = library.bundle(BY_ID[case], **options)
    ours, theirs = CSession(bundle), OrtSession(bundle, threads=1)
    prompt = np.random.default_rng(3).integers(0, VOCABULARY, 700).tolist()  # more than one piece
    ids, states = ours.generate(prompt, 20)
    assert ids == list(generate_ids(theirs, prompt, 20, Sampling()))
    more, _ = ours.generate([ids[-1]], 5, states=states)
    assert more == list(generate_ids(theirs, [*prompt, *ids], 5, Sampling()))


def test_generation_ends(session: CSession) -> None:
    ids, _ = session.generate(IDS, 30)
    end = ids.index(ids[4])
    assert session.generate(IDS, 30, stop=[ids[4]])[0] == ids[: end + 1]
    assert session.generate(IDS, 30, on_token=lambda token: token == ids[4])[0] == ids[: end + 1]
    assert session.generate(IDS, 0)[0] == []


def test_sampling_draws_from_the_model(session: CSession) -> None:
    """The share of each id among the first ids drawn is its probability, cut by top_k."""
    outputs, _ = session.run({"input_ids": np.array([IDS])})
    logits = outputs["logits"][0, -1].astype(np.float64) / 2
    kept = np.argsort(-logits)[:3]
    chances = np.exp(logits[kept] - logits[kept].max())
    chances /= chances.sum()
    drawn = [
        session.generate(IDS, 1, temperature=2.0, top_k=3, seed=seed)[0][0] for seed in range(900)
    ]
    shares = np.array([drawn.count(int(token)) for token in kept]) / len(drawn)
    assert shares.sum() == 1
    # five standard deviations of a share
    assert (np.abs(shares - chances) < 5 * np.sqrt(chances * (1 - chances) / len(drawn))).all()
    ids, _ = session.generate(IDS, 8)
    assert session.generate(IDS, 8, temperature=3.0, top_k=1)[0] == ids
    assert session.generate(IDS, 8, temperature=3.0, top_p=1e-9)[0] == ids
    assert session.generate(IDS, 8, temperature=1e-30)[0] == ids
    hot = [session.generate(IDS, 8, temperature=1.0, seed=seed)[0] for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]


@pytest.mark.parametrize(
    ("sampling", "told"),
    [
        ({"temperature": -1.0}, "temperature: -1"),
        ({"temperature": float("nan")}, "temperature: "),
        ({"top_k": -1}, "top_k: -1"),
        ({"top_p": 1.5}, "top_p: 1.5"),
    ],
)
def test_sampling_has_bounds(session: CSession, sampling: dict[str, Any], told: str) -> None:
    with pytest.raises(SessionError) as caught:
        session.generate(IDS, 2, **sampling)
    assert str(caught.value).startswith(told)
    assert caught.value.status == OPTION


def assert_forecasts_are_pythons(bundle: Path, horizons: tuple[int, ...]) -> None:
    ours, theirs = CSession(bundle), OrtSession(bundle, threads=1)
    random = np.random.default_rng(0)
    series = [random.standard_normal(n).cumsum().astype(np.float32) for n in (40, 64, 7)]
    series[1][5:9] = np.nan
    for horizon in horizons:
        expected = forecast_series(theirs, series, horizon)
        equal({"q": ours.forecast(series, horizon)}, {"q": expected.quantiles})
    with pytest.raises(SessionError, match="horizon: 0 is not 1 or more"):
        ours.forecast(series, 0)
    with pytest.raises(SessionError, match="series 1: holds infinite numbers"):
        ours.forecast([series[0], np.array([1, np.inf])], 3)


@pytest.mark.parametrize("case", ["tirex-small", "tirex-odd-sizes"])
def test_forecasts_are_pythons(library: Library, case: str) -> None:
    bundle = library.bundle(BY_ID[case])
    assert_forecasts_are_pythons(bundle, (1, 40, 200))
    session = CSession(bundle)
    patch = OrtSession(bundle, threads=1).manifest.forecast.patch  # type: ignore[union-attr]
    _, states = session.run({"context": np.zeros((1, 2 * patch), np.float32)})
    with pytest.raises(SessionError, match=f"goes on by a multiple of {patch}"):
        session.run({"context": np.zeros((1, patch + 1), np.float32)}, states)


@pytest.mark.parametrize(
    ("horizon", "status", "told"),
    [
        (2**63 - 1, OPTION, f"horizon: {2**63 - 1} is too large"),
        (2**60, OPTION, f"horizon: {2**60} is too large"),
        (2**50, MEMORY, "out of memory"),
    ],
)
def test_horizons_have_bounds(library: Library, horizon: int, status: int, told: str) -> None:
    session = CSession(library.bundle(BY_ID["tirex-small"]))
    with pytest.raises(SessionError) as caught:
        session.forecast([np.zeros(9, np.float32)], horizon)
    assert (caught.value.status, str(caught.value)) == (status, told)


def test_forecasts_of_several_series_are_pythons(tmp_path: Path) -> None:
    bundle = Path(pipeline.export(write_tirex2(tmp_path / "source"), tmp_path / "bundle").path)
    assert_forecasts_are_pythons(bundle, (1, 9))
    session, context = CSession(bundle), np.zeros((1, 1, 8), np.float32)
    feeds = {"context": context, "groups": np.zeros((1, 2), np.int64)}
    feeds |= {"past_covariates": context, "future_covariates": np.zeros((1, 0, 9), np.float32)}
    for name, shape, told in (
        ("past_covariates", (1, 1, 9), "length is 9, where context has 8"),
        ("future_covariates", (1, 0, 8), "with length 8, horizon at least 1"),
        ("groups", (1, 4), "with targets 1"),
    ):
        wrong = feeds | {name: np.zeros(shape, feeds[name].dtype)}
        with pytest.raises(SessionError) as caught:
            session.run(wrong)
        assert told in str(caught.value)


def test_saved_states_are_pythons(
    library: Library, session: CSession, states: CStates, tmp_path: Path
) -> None:
    """Each side goes on from what the other one saved."""
    manifest = OrtSession(library.bundle(BY_ID["stack-mixed"]), threads=1).manifest
    path = tmp_path / "states.safetensors"
    states.save(path)
    assert list(tmp_path.iterdir()) == [path]
    read = States.load(path, manifest)
    equal(read, states.arrays())
    read.save(path, manifest)
    loaded = session.load(path)
    token = {"input_ids": np.array([[1], [2], [3]])}
    equal(session.run(token, loaded)[0], session.run(token, states)[0])
