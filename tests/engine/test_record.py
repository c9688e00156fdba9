"""An engine's JSON: what is written is read, and what is damaged is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import assert_short_error, run_cli, succeed
from xlstm_export.bundle.checksum import sha256
from xlstm_export.engine.profiles import ShapeRange
from xlstm_export.engine.record import (
    FORMAT_VERSION,
    EngineRecord,
    PluginInfo,
    PluginLibrary,
    read_record,
    to_json,
)

RECORD = EngineRecord(
    format_version=FORMAT_VERSION,
    backend="tensorrt_rtx",
    builder_version="1.7.1.116",
    compute_capability=["8.9", "12.0"],
    profiles=[{"input_ids": ShapeRange((1, 1), (1, 8), (4, 8))}],
    plugins=[PluginInfo("/layers.0/XlstmMLSTM", "XlstmMLSTM", "libxlstm_trt 0.1.0")],
    plugin_library=PluginLibrary("libxlstm_trt.so", "0.1.0", "ab" * 32, True),
    bundle_sha256="cd" * 32,
    engine_sha256="ef" * 32,
)


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "x.json"
    path.write_text(json.dumps(json.loads(to_json(RECORD)) | changes))
    return path


def test_round_trip(tmp_path: Path) -> None:
    assert read_record(write(tmp_path, a_key_of_the_future=1)) == RECORD
    assert read_record(tmp_path / "x.engine") == RECORD


def test_keys_of_the_format() -> None:
    keys = ("format_version", "backend", "builder_version", "compute_capability", "profiles",
            "plugins", "bundle_sha256")  # fmt: skip
    assert set(keys) <= {field.name for field in dataclasses.fields(EngineRecord)}


def test_inspect(tmp_path: Path) -> None:
    path = write(tmp_path)
    text = succeed("inspect", path)
    for word in ("tensorrt_rtx 1.7.1.116", "8.9, 12.0", "1x1 to 4x8, tuned for 1x8",
                 "/layers.0/XlstmMLSTM", "libxlstm_trt.so 0.1.0, embedded"):  # fmt: skip
        assert word in text
    facts = json.loads(succeed("inspect", path, "--json"))
    record = json.loads(path.with_suffix(".json").read_text())
    assert facts == {"engine": str(path), "is_unchanged": False, **record}
    assert "NOT the one of this record" in text
    engine = path.with_suffix(".engine")
    engine.write_bytes(b"engine")
    write(tmp_path, engine_sha256=sha256(engine))
    assert json.loads(succeed("inspect", engine, "--json"))["is_unchanged"]
    assert "as build wrote it" in succeed("inspect", path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "newer than 1"),
        ({"format_version": "x"}, "damaged"),
        ({"profiles": [{"x": {"min": [1]}}]}, "damaged"),
        ({"plugins": 3}, "damaged"),
        ({"backend": None}, "damaged"),
    ],
)
def test_damage(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, **changes)
    assert_short_error(run_cli("inspect", path), str(path), message)


def test_missing(tmp_path: Path) -> None:
    outcome = run_cli("inspect", tmp_path / "x.engine")
    assert_short_error(outcome, str(tmp_path / "x.json"), "xlstm-export build")
