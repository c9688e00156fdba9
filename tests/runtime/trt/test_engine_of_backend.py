"""Which engine a backend's name means."""

from __future__ import annotations

from pathlib import Path

import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from tests.runtime.trt.host_device import some_record
from xlstm_export.engine.record import to_json
from xlstm_export.errors import EngineError
from xlstm_export.runtime.open import Execution
from xlstm_export.runtime.trt.engine import engine_of_backend


def write_engine(bundle: Path, name: str, backend: str) -> None:
    folder = bundle / "engines"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.engine").write_bytes(b"engine")
    (folder / f"{name}.json").write_text(to_json(some_record(backend=backend)))


def test_the_only_engine_of_a_kind(tmp_path: Path) -> None:
    write_engine(tmp_path, "one", "tensorrt")
    write_engine(tmp_path, "other", "tensorrt_rtx")
    assert engine_of_backend(tmp_path, "tensorrt") == "one"
    assert engine_of_backend(tmp_path, "tensorrt_rtx") == "other"
    write_engine(tmp_path, "third", "tensorrt")
    with pytest.raises(EngineError, match="engines one, third are of tensorrt; name one"):
        engine_of_backend(tmp_path, "tensorrt")


def test_no_engine_of_a_kind(library: Library) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"])
    with pytest.raises(EngineError, match=r"make one: .* --backend tensorrt_rtx"):
        xe.open(bundle, backend="tensorrt_rtx")
    with pytest.raises(EngineError, match="no engine of tensorrt;"):
        xe.validate(bundle, library.source(BY_ID["stack-mixed"]).path, backend="tensorrt")


def test_it_is_that_engine_that_is_opened(tmp_path: Path) -> None:
    write_engine(tmp_path, "one", "tensorrt")
    assert Execution(backend="tensorrt").of(tmp_path) == Execution(engine="one")
    assert Execution(backend="ort").of(tmp_path) == Execution(backend="ort")
