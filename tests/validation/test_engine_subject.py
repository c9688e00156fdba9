"""An engine as the subject, on the stand-in for TensorRT: what runs, what cannot, and where it is
wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from tests.runtime.trt.host_device import OrtEngine, stand_in
from xlstm_export.engine.profiles import ShapeOptions, make_profiles
from xlstm_export.errors import EngineError
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.trt import session as engine_sessions
from xlstm_export.validation import validate as validation

STACK = BY_ID["stack-mixed"]
SMALL = ShapeOptions(max_batch_size=2, max_input_len=20)


def _engine(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, shapes: ShapeOptions | None = None
) -> OrtEngine:
    """What every name of an engine opens from now on."""
    manifest = xe.open(bundle).manifest
    profiles = None if shapes is None else make_profiles(manifest, shapes)
    session, engine, _ = stand_in(bundle, profiles)
    monkeypatch.setattr(engine_sessions, "open_engine", lambda *_, **__: session)
    return engine


def _validate(library: Library, **options: Any) -> xe.Report:
    bundle, source = library.bundle(STACK), library.source(STACK).path
    return xe.validate(bundle, source, engine="some", upstream=False, threads=1, **options)


def test_what_an_engine_cannot_do_is_named(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built for 2 rows and 20 steps: longer calls are cut, more rows are refused."""
    _engine(library.bundle(STACK), monkeypatch, SMALL)
    report = _validate(library, against=library.bundle(STACK))
    assert report.verdict == "self-consistent", report.explanation
    assert any("calls of at most 20 steps: longer ones were cut" in note for note in report.notes)
    checks = {check.name: check for check in report.checks}
    assert checks["one call or many"].outcome == "passed"
    assert checks["fork and restore"].outcome == "passed"
    assert checks["alone or in a batch"].outcome == "skipped"
    assert "not run by this engine" in checks["alone or in a batch"].reason
    assert "--max-batch-size 7" in checks["alone or in a batch"].reason
    assert "operators of an engine cannot be run one by one" in checks["extreme gates"].reason
    assert report.against is not None
    assert report.against.is_judged
    assert "ONNX Runtime" in report.against.subject
    assert report.speeds is not None
    assert [speed.who for speed in report.speeds.measured][:3] == [
        "this bundle", "ONNX Runtime on the CPU", "stock ONNX Runtime"
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["compare_ragged", "measure_speed"])
def test_what_its_shapes_do_not_allow_is_a_note(
    library: Library, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Of a ragged batch of 80 steps, or of a call that is timed; the rest has its verdict."""

    def refused(*given: object) -> None:
        raise EngineError("[2, 80]: the engine takes [1, 1] to [2, 64]")

    bundle, source = library.bundle(STACK, ragged=True), library.source(STACK).path
    _engine(bundle, monkeypatch)
    monkeypatch.setattr(validation, place, refused)
    report = xe.validate(bundle, source, engine="some", upstream=False, threads=1)
    assert report.verdict == "self-consistent", report.explanation
    assert any("by this engine: [2, 80]" in note for note in report.notes)


def test_a_fault_of_the_engine_alone_is_located_by_layer(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _engine(library.bundle(STACK), monkeypatch)
    compute = engine.session.run

    def wrong(*given: Any) -> Any:
        outputs, states = compute(*given)
        arrays = {key: np.array(states[key]) for key in states}
        arrays["1.slstm.c"] *= np.float32(1.001)
        return outputs, type(states)(arrays)

    monkeypatch.setattr(engine.session, "run", wrong)
    report = _validate(library)
    assert report.verdict == "failed"
    assert report.location is not None
    assert report.location.layer == "layers.1.slstm"
    assert "1.slstm." in report.location.tensor
    assert "CUDA plugins" in report.location.operator
    assert "the graph is right" in report.location.cause


def test_without_an_engine_nothing_is_said_of_one(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OrtSession.run

    def wrong(session: OrtSession, *given: Any, **options: Any) -> Any:
        outputs, states = run(session, *given, **options)
        return {name: array * np.float32(1.001) for name, array in outputs.items()}, states

    monkeypatch.setattr(OrtSession, "run", wrong)
    bundle, source = library.bundle(STACK), library.source(STACK).path
    report = xe.validate(bundle, source, upstream=False, threads=1)
    assert report.verdict == "failed"
    assert report.location is None
