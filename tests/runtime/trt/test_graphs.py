"""Calls of an engine replayed as CUDA graphs, on the stand-in: what was captured computes again.

Whether TensorRT's calls can be captured, and what that is worth, only a GPU shows.
"""

from __future__ import annotations

import gc
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import xlstm_export as xe
from tests.gpu.graph_session import compare
from tests.model_cases import BY_ID, Library
from tests.runtime.trt.host_device import assert_same_states, ids, reference_session, run, stand_in
from tests.runtime.trt.test_engine import Opened
from xlstm_export.errors import EngineError
from xlstm_export.runtime.trt import graphs
from xlstm_export.runtime.trt.device import CudaDevice


@pytest.fixture
def bundle(library: Library) -> Path:
    return library.bundle(BY_ID["stack-mixed"])


def rollout(session: Any, batch: int, steps: int, states: Any = None) -> tuple[list[Any], Any]:
    """Logits of a prompt (without ``states``) and of each step, and the states."""
    found = []
    for number in range(steps):
        output, states = run(session, ids(batch, 6 if states is None else 1, number), states)
        found.append(np.array(output)[:, -1])
    return found, states


def test_a_loop_is_two_graphs_of_each_batch_size(bundle: Path) -> None:
    session, _, device = stand_in(bundle, graphs=True)
    reference = reference_session(bundle)
    for turn, (batch, captured) in enumerate(((2, 2), (3, 4), (2, 4))):
        device.calls.clear()
        found, states = rollout(session, batch, 12)
        expected, after = rollout(reference, batch, 12)
        np.testing.assert_array_equal(found, expected)
        assert_same_states(states, after)
        assert len(device.graphs) == captured
        # from the third time on; the prompt is no step
        assert device.calls.count("launch") >= (11 if turn == 2 else 12 - 1 - 5)
        del states


def test_what_a_caller_keeps_is_never_written_again(bundle: Path) -> None:
    session, _, device = stand_in(bundle, graphs=True)
    reference = reference_session(bundle)
    _, states = rollout(session, 2, 8)
    _, after = rollout(reference, 2, 8)
    kept = []
    for number in range(9):
        _, states = run(session, ids(2, 1, number), states)
        _, after = run(reference, ids(2, 1, number), after)
        kept.append((states, after))
    for mine, theirs in kept:
        assert_same_states(mine, theirs)
        found, expected = rollout(session, 2, 5, mine), rollout(reference, 2, 5, theirs)
        np.testing.assert_array_equal(found[0], expected[0])
        assert_same_states(found[1], expected[1])
    assert device.calls.count("launch")


def test_the_graph_that_was_used_longest_ago_goes(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    session, engine, device = stand_in(bundle, graphs=True)
    for batch in (1, 2, 3, 1):
        found, states = rollout(session, batch, 9)
        np.testing.assert_array_equal(found, rollout(reference_session(bundle), batch, 9)[0])
        assert len(device.graphs) == 2
        del states
    session.close()
    assert not device.graphs
    assert engine.closed


def test_what_cannot_be_captured_is_computed(bundle: Path) -> None:
    """As TensorRT-RTX says of a context that still compiles its kernels."""
    session, engine, device = stand_in(bundle, graphs=True)
    engine.capturable = False
    found, states = rollout(session, 2, 8)
    np.testing.assert_array_equal(found, rollout(reference_session(bundle), 2, 8)[0])
    assert "capture" not in device.calls
    engine.capturable = True
    rollout(session, 2, 8, states)
    assert "launch" in device.calls


def test_a_call_that_the_driver_does_not_capture_is_told(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _, device = stand_in(bundle, graphs=True)

    def refuse(_: object) -> None:
        raise EngineError("GPU 0: cudaStreamEndCapture failed with an error (901)")

    monkeypatch.setattr(device, "capture", refuse)
    with pytest.raises(EngineError, match=r"leave cuda_graph out \(GPU 0: .*\(901\)"):
        rollout(session, 2, 12)


def test_graphs_go_with_a_session_that_is_dropped(bundle: Path) -> None:
    session, engine, device = stand_in(bundle, graphs=True)
    rollout(session, 2, 12)
    assert device.graphs
    del session, engine
    gc.collect()
    assert not device.graphs


def test_the_engine_is_asked_once_for_the_same_shapes(bundle: Path) -> None:
    session, engine, _ = stand_in(bundle, graphs=True)
    asked: list[object] = []
    ask = engine.output_shapes
    engine.output_shapes = lambda *of: asked.append(of) or ask(*of)  # type: ignore[method-assign,func-returns-value]
    states, before = None, 0
    for number in range(16):
        _, states = run(session, ids(2, 1, number), states)
        before = before or (number == 9 and len(asked))
    assert len(asked) == before > 0


def test_an_engine_is_opened_with_graphs_on_request(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(library.bundle(BY_ID["stack-mixed"]), tmp_path / "out")
    opened = Opened(out, monkeypatch)
    expected, _ = rollout(reference_session(out), 1, 8)
    for wanted in (False, True):
        found, _ = rollout(xe.open(out, "rtx", cuda_graph=wanted), 1, 8)
        np.testing.assert_array_equal(found, expected)
        assert ("launch" in opened.device.calls) is wanted


def test_what_a_gpu_compares_is_equal_here(bundle: Path) -> None:
    """The program of tests/gpu, on stand-ins."""
    told = compare(stand_in(bundle)[0], stand_in(bundle, graphs=True)[0])
    assert re.fullmatch(r"25 calls of 2 batches by [4-9] graphs", told)
    session, engine, _ = stand_in(bundle, graphs=True)
    engine.capturable = False
    with pytest.raises(SystemExit, match="no call was captured"):
        compare(stand_in(bundle)[0], session)


class Cuda:
    """``cuda.bindings.runtime``, which keeps what it is asked for."""

    cudaStreamCaptureMode = SimpleNamespace(  # noqa: N815
        cudaStreamCaptureModeThreadLocal="thread"
    )

    def __init__(self, refuses: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refuses = refuses

    def __getattr__(self, name: str) -> Any:
        results = {"cudaStreamEndCapture": ("graph",), "cudaGraphInstantiate": ("executable",)}

        def call(*given: object) -> tuple[Any, ...]:
            self.calls.append((name, *given))
            return (9 if name == self.refuses else 0, *results.get(name, ()))

        return call


def cuda_device(cuda: Cuda) -> CudaDevice:
    device = CudaDevice.__new__(CudaDevice)
    device._cuda, device.stream, device.index = cuda, 7, 0
    return device


def test_capturing_by_cuda() -> None:
    cuda = Cuda()
    device = cuda_device(cuda)
    graph = device.capture(lambda: cuda.work())
    device.launch(graph)
    device.drop(graph)
    assert cuda.calls == [
        ("cudaStreamBeginCapture", 7, "thread"), ("work",), ("cudaStreamEndCapture", 7),
        ("cudaGraphInstantiate", "graph", 0), ("cudaGraphDestroy", "graph"),
        ("cudaGraphLaunch", "executable", 7), ("cudaGraphExecDestroy", "executable"),
    ]  # fmt: skip


def test_a_capture_that_fails_is_ended() -> None:
    cuda = Cuda()

    def work() -> None:
        raise EngineError("refused")

    with pytest.raises(EngineError, match="refused"):
        cuda_device(cuda).capture(work)
    assert [name for name, *_ in cuda.calls] == [
        "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGetLastError",
    ]  # fmt: skip
    with pytest.raises(EngineError, match="cudaGraphInstantiate failed"):
        cuda_device(Cuda("cudaGraphInstantiate")).capture(lambda: None)
