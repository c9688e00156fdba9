"""What SOURCE is, told by name, place and content."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Made
from tests.cli.terminal import assert_short_error, run_cli, succeed, succeed_json

RECORD = {
    "format_version": 1,
    "backend": "tensorrt",
    "builder_version": "11.0",
    "compute_capability": ["8.9"],
    "profiles": [{"input_ids": {"min": [1, 1], "opt": [1, 1], "max": [8, 1]}}],
    "plugins": [],
    "plugin_library": {"name": "x.so", "version": "1", "sha256": "0", "embedded": True},
    "bundle_sha256": "0" * 64,
    "engine_sha256": "0" * 64,
}


def test_a_bundle_says_whether_it_is_what_was_exported_and_validated(
    made: Made, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(made.bundles / "stack", tmp_path / "bundle"))
    succeed("validate", bundle, "--reference", made.checkpoints / "stack", "--no-upstream")
    facts = succeed_json("inspect", bundle)
    assert (facts["is_unchanged"], facts["verdict"]) == (True, "self-consistent")
    assert facts["is_complete"] is True
    text = succeed("inspect", bundle)
    assert "as export wrote them" in text
    assert re.search(r"^validation +self-consistent$", text, re.MULTILINE)
    path = bundle / "reports" / "validation.json"
    path.write_text(path.read_text().replace('"complete": true', '"complete": false'))
    assert succeed_json("inspect", bundle)["is_complete"] is False
    interrupted = "self-consistent, interrupted before all was done: validate again"
    assert interrupted in succeed("inspect", bundle)
    with open(bundle / "model.onnx.data", "r+b") as file:
        file.write(b"other")
    facts = succeed_json("inspect", bundle)
    assert (facts["is_unchanged"], facts["verdict"]) == (False, None)
    text = succeed("inspect", bundle)
    assert "CHANGED since export" in text
    assert "OTHER files: validate again" in text
    outcome = run_cli("validate", bundle, "--reference", made.checkpoints / "stack")
    assert "are not those that export wrote" in outcome.out
    (bundle / "reports" / "validation.json").write_text("[]")
    assert succeed_json("inspect", bundle)["verdict"] is None


@pytest.mark.parametrize("name", ["xlstm_export.json", "config.json"])
def test_files_that_stand_for_their_bundle(made: Made, name: str) -> None:
    bundle = made.bundles / "hf"
    assert succeed_json("inspect", bundle / name) == succeed_json("inspect", bundle)


@pytest.mark.parametrize(("source", "name"), [("hf", "config.json"), ("stack", "config.yaml")])
def test_files_that_stand_for_their_checkpoint(made: Made, source: str, name: str) -> None:
    folder = made.checkpoints / source
    assert succeed_json("inspect", folder / name) == succeed_json("inspect", folder)


def test_a_file_in_the_current_folder(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.checkpoints / "hf")
    assert succeed_json("inspect", "config.json")["family"] == "hf"


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_parts_of_a_bundle_name_their_folder(made: Made, name: str) -> None:
    bundle = made.bundles / "hf"
    assert_short_error(run_cli("inspect", bundle / name), name, f"give its folder, {bundle}\n")


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors.index.json"])
def test_json_that_is_no_record(made: Made, name: str) -> None:
    outcome = run_cli("inspect", made.checkpoints / "hf" / name)
    assert_short_error(outcome, f"{name}: no record of an engine; give the folder")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    outcome = run_cli("inspect", tmp_path / "x.json")
    assert_short_error(outcome, "x.json: no such file or folder")


def test_records_of_engines_by_content_and_by_place(tmp_path: Path) -> None:
    record = tmp_path / "mine.json"
    record.write_text(json.dumps(RECORD))
    assert succeed_json("inspect", record)["builder_version"] == "11.0"
    engines = tmp_path / "engines"
    engines.mkdir()
    (engines / "sm89.json").write_text("{")
    outcome = run_cli("inspect", engines / "sm89.json")
    assert_short_error(outcome, "sm89.json: damaged engine record", "build again")
    (tmp_path / "alone.engine").touch()
    shutil.copy(engines / "sm89.json", tmp_path / "alone.json")
    for name in ("alone.json", "alone.engine"):
        outcome = run_cli("inspect", tmp_path / name)
        assert_short_error(outcome, "alone.json: damaged engine record")
