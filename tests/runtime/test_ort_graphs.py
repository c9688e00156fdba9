"""Decode steps as CUDA graphs through ONNX Runtime, on the host: what is captured, and what lives.

That a GPU captures and replays them is for tests/gpu/test_ort_graphs_on_gpu.py. Here ONNX Runtime
computes every call, and ``Replaying`` holds that a graph's number always has the same addresses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from tests.runtime.conformance import GraphSetting, assert_equal, bound, ids
from xlstm_export.errors import BackendUnavailableError, OptionError
from xlstm_export.runtime import ort, ort_graphs
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.states import States
from xlstm_export.runtime.step_batch import StepBatch


class Replaying:
    """ONNX Runtime's session, where a number that was captured computes what it did then."""

    def __init__(self, session: OrtSession) -> None:
        assert session._begin is not None
        graphs = session._begin._graphs
        assert graphs is not None
        self.graphs: Any = graphs
        self._session, graphs._session = graphs._session, self
        self.numbers: list[int] = []
        self._captured: dict[int, tuple[Any, tuple[int, ...]]] = {}

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        number = int(options.get_run_config_entry("gpu_graph_id"))
        self.numbers.append(number)
        if number != ort_graphs.NO_GRAPH:
            places = tuple(value.data_ptr() for value in binding.get_outputs())
            captured = self._captured.setdefault(number, (binding, places))
            assert captured == (binding, places)
            binding = captured[0]
        self._session.run_with_iobinding(binding, options)


@pytest.fixture
def bundle(library: Library) -> Path:
    return library.bundle(BY_ID["stack-mixed"])


def decode(session: Any, batch: int, steps: int, states: Any = None) -> tuple[list[Any], Any]:
    """Logits of a prompt (without ``states``) and of each step, and the states."""
    found = []
    for number in range(steps):
        feeds = {"input_ids": ids(batch, 9 if states is None else 1, number)}
        outputs, states = session.run(feeds, states, last=number % 2 == 0)
        found.append(np.array(outputs["logits"])[:, -1])
    return found, states


def test_a_loop_is_two_graphs_of_each_batch_size(bundle: Path) -> None:
    session = bound(bundle, graphs=True)
    replaying, plain = Replaying(session), OrtSession(bundle, threads=1)
    for batch, graphs in ((2, [1, 2]), (3, [3, 4]), (2, [1, 2])):
        replaying.numbers.clear()
        got, states = decode(session, batch, 9)
        expected, after = decode(plain, batch, 9)
        np.testing.assert_array_equal(got, expected)
        assert_equal(states, after)
        captured = [number for number in replaying.numbers if number != ort_graphs.NO_GRAPH]
        assert captured[-6:] == graphs * 3
        assert replaying.numbers[0] == ort_graphs.NO_GRAPH, "a prompt is no step"
        del states, after


def test_what_a_caller_keeps_is_never_written_again(bundle: Path) -> None:
    """Every state of a rollout is kept and continued, long after."""
    session, plain = bound(bundle, graphs=True), OrtSession(bundle, threads=1)
    replaying = Replaying(session)
    _, states = decode(session, 2, 4)
    kept, copies = [], []
    for number in range(12):
        _, states = session.run({"input_ids": ids(2, 1, number)}, states)
        kept += [states] if number % 3 == 0 else []
        copies += [{k: np.array(states[k]) for k in states}] if number % 3 == 0 else []
    for given, expected in zip(kept, copies, strict=True):
        assert_equal(given, expected)
        assert_equal(*(decode(who, 2, 5, s)[1] for who, s in ((session, given), (plain, expected))))
    assert max(replaying.numbers) > 0


def test_states_put_together_otherwise_are_read_as_they_are_given(bundle: Path) -> None:
    """Two layers' states change places: a graph would read them where they were."""
    session, plain = bound(bundle, graphs=True), OrtSession(bundle, threads=1)
    replaying = Replaying(session)
    _, states = decode(session, 2, 8)
    shapes = {key: (key.split(".")[1:], array.shape) for key, array in states.arrays.items()}
    one, other = next((a, b) for a in shapes for b in shapes if a != b and shapes[a] == shapes[b])
    arrays = {**states.arrays, one: states.arrays[other], other: states.arrays[one]}
    replaying.numbers.clear()
    got = session.run({"input_ids": ids(2, 1)}, States(arrays))
    expected = plain.run({"input_ids": ids(2, 1)}, {k: np.array(a) for k, a in arrays.items()})
    assert replaying.numbers == [ort_graphs.NO_GRAPH]
    assert_equal(got[1], expected[1])


def test_ragged_rows_and_choices(library: Library) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"], ragged=True)
    session, plain = bound(bundle, graphs=True), OrtSession(bundle, threads=1)
    replaying = Replaying(session)
    states, after = (who.run({"input_ids": ids(3, 5)})[1] for who in (session, plain))
    for number in range(8):
        lengths = np.random.default_rng(number).integers(-1, 2, 3).astype(np.int32)
        feeds = {"input_ids": ids(3, 1, number), "sequence_lengths": lengths}
        (got, states), (expected, after) = (
            who.choose(feeds, s) for who, s in ((session, states), (plain, after))
        )
        assert got == expected
        assert_equal(states, after)
    assert replaying.numbers[-2:] == [1, 2]


def test_rows_that_come_and_go(bundle: Path) -> None:
    """Sets of several batch sizes, states gathered out of them."""
    batches = [StepBatch(bound(bundle, graphs=True)), StepBatch(OrtSession(bundle, threads=1))]
    random, tokens = np.random.default_rng(1), dict[int, int]()
    for _ in range(60):
        if tokens and random.random() < 0.15:
            row = int(random.choice(list(tokens)))
            tokens.pop(row)
            for batch in batches:
                batch.leave(row)
        if random.random() < 0.2:
            prompt = random.integers(0, 199, random.integers(1, 9)).tolist()
            assert len({batch.join(prompt) for batch in batches}) == 1
        got, expected = (batch.choose(tokens) for batch in batches)
        assert got == expected
        tokens |= {row: choice.token for row, choice in got.items()}


def test_a_step_that_cannot_be_captured_is_told(bundle: Path) -> None:
    session = bound(bundle, graphs=True)
    replaying = Replaying(session)
    replaying._captured[1] = None, ()  # type: ignore[assignment]
    with pytest.raises(BackendUnavailableError, match="did not run as a CUDA graph: leave cuda_g"):
        decode(session, 2, 9)


def test_there_are_no_more_graphs_than_may_be(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_graphs, "MOST_GRAPHS", 3)
    session = bound(bundle, graphs=True)
    replaying = Replaying(session)
    for batch in (1, 2, 3):
        got, _ = decode(session, batch, 8)
        np.testing.assert_array_equal(got, decode(OrtSession(bundle, threads=1), batch, 8)[0])
    assert max(replaying.numbers) == 3
    assert len(replaying.graphs._sets._idle[3]) <= 4


@pytest.mark.parametrize("backend", ["auto", "ort"])
def test_graphs_are_a_gpus(bundle: Path, backend: str) -> None:
    with pytest.raises(OptionError, match="is for engines and for backend ort-cuda"):
        xe.open(bundle, backend=backend, cuda_graph=True)


@pytest.mark.parametrize("family", ["tirex-", "vil-"])
def test_what_takes_no_steps_has_no_graphs(library: Library, family: str) -> None:
    case = next(name for name in BY_ID if name.startswith(family))
    with pytest.raises(OptionError, match="is no model that steps from its states; leave it out"):
        OrtSession(library.bundle(BY_ID[case]), cuda=True, cuda_graph=True)


def test_function_bodies_have_branches() -> None:
    runtime: Any = type("Runtime", (), {"SessionOptions": type("Options", (), {}),
                        "__version__": "1.99", "get_available_providers":
                        staticmethod(lambda: ["CUDAExecutionProvider"])})  # fmt: skip
    with pytest.raises(OptionError, match="needs the native kernels: function bodies have branch"):
        ort.session_setting(runtime, 1, False, cuda=True, cuda_graph=True)


def test_a_graph_that_cannot_be_captured_is_told(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError(
            "This session cannot use the graph capture feature as requested by the user as all "
            "compute graph nodes have not been partitioned to the CUDAExecutionProvider"
        )

    monkeypatch.setattr(GraphSetting, "open", refuse)
    with pytest.raises(BackendUnavailableError, match="captures no CUDA graph of it; leave"):
        bound(bundle, graphs=True)
