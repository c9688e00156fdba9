"""SOURCE as typed: local paths, hub names, and what is said when there is no network."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import (
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    filter_repo_objects,
)

from xlstm_export.checkpoint.hub import resolve_source
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import BackendUnavailableError, CheckpointError

NAME = "NX-AI/xLSTM-7b"


class Hub:
    """Stands for snapshot_download: writes ``files`` that match, remembers the calls."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder, self.files = folder, files
        self.calls: list[dict[str, Any]] = []

    def __call__(self, repository: str, **options: Any) -> str:
        self.calls.append({"repository": repository, **options})
        for name in self.files:
            if any(Path(name).match(pattern) for pattern in options["allow_patterns"]):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(b"")
        return str(self.folder)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def test_paths_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    config = tmp_path / "config.yaml"
    config.touch()
    assert resolve_source(str(tmp_path), None) == Source(tmp_path)
    assert resolve_source(str(config), config) == Source(config, config)
    Path("org/name").mkdir(parents=True)
    assert resolve_source("org/name", None) == Source(Path("org/name"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_source("~/config.yaml", None) == Source(config)


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "~nobody-of-this-name/x",
        "/no/where",
        "./org/name",
        "a/b/../c",
        "a/b/c/",
        "org/model.safetensors",
        "../x",
        "org/",
    ],
)
def test_missing_path(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        resolve_source(text, None)


def test_missing_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.yaml: no such file"):
        resolve_source(str(tmp_path), tmp_path / "absent.yaml")


def test_download_takes_no_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.model", "x.onnx"]
    hub = Hub(tmp_path, files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert resolve_source(NAME, None) == Source(tmp_path, repository=NAME)
    assert [call["repository"] for call in hub.calls] == [NAME]
    got = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert got == {"config.json", "model.safetensors", "tokenizer.model"}


def test_download_takes_pickles_where_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tmp_path, ["README.md", "model.ckpt", "tirex.onnx"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert resolve_source("NX-AI/TiRex", None).name == "NX-AI/TiRex"
    assert len(hub.calls) == 2
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"model.ckpt"}


def test_a_folder_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the filter of huggingface_hub itself, in which * stands for slashes as well."""
    there = [
        "tokenizer.json", "model.safetensors", "config.json", "runs/a/config.json", "README.md",
        "runs/a/model.safetensors", "runs/a/optimizer.pt", "runs/a/onnx/model.safetensors",
        "runs/b/config.json",
    ]  # fmt: skip

    def snapshot_download(repository: str, **options: Any) -> str:
        assert repository == NAME
        patterns = {key: options[key] for key in ("allow_patterns", "ignore_patterns")}
        for name in filter_repo_objects(there, **patterns):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    source = resolve_source(f"{NAME}/runs/a", None)
    assert source == Source(tmp_path / "runs" / "a", repository=f"{NAME}/runs/a")
    got = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert got == {"tokenizer.json", "runs/a/config.json", "runs/a/model.safetensors"}
    with pytest.raises(CheckpointError, match=f"{NAME} on the Hugging Face Hub has no folder no"):
        resolve_source(f"{NAME}/no", None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LocalEntryNotFoundError("Got: ConnectError\nlong story"), "cannot be reached"),
        (OfflineModeIsEnabled("offline"), "cannot be reached"),
        (RepositoryNotFoundError.__new__(RepositoryNotFoundError), "no such repository"),
        (RuntimeError("disk full.\nmore"), "disk full."),
    ],
)
def test_failed_download_lists_the_files(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match=words) as caught:
        resolve_source(NAME, None)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{NAME}: no such folder here")
    assert len(lines) <= 4
    for word in ("config.json", "model.safetensors", "index.json", "SOURCE"):
        assert word in str(caught.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install .huggingface_hub"):
        resolve_source(NAME, None)


@pytest.mark.parametrize("offline", ["1", "0"])
def test_unreachable_hub_fails_fast(tmp_path: Path, offline: str) -> None:
    """In a process of its own: huggingface_hub reads its environment when imported."""
    program = (
        "from xlstm_export.checkpoint.hub import resolve_source\n"
        "from xlstm_export.errors import CheckpointError\n"
        "try: resolve_source('no-such-organisation/no-such-model', None)\n"
        "except CheckpointError as error: print(error)\n"
    )
    environment = os.environ | {
        "HF_HUB_OFFLINE": offline,
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": "http://127.0.0.1:9",  # nothing listens there
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert "cannot be reached" in done.stdout
    assert time.monotonic() - start < 30
