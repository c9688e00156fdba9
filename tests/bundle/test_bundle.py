"""Whether a bundle is still what export wrote: graph, data and manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.model_cases import BY_ID, Library
from xlstm_export.bundle.bundle import Bundle
from xlstm_export.bundle.checksum import is_as_written
from xlstm_export.bundle.manifest import DATA_FILE, MANIFEST_FILE, MODEL_FILE, own_digest
from xlstm_export.errors import BundleError
from xlstm_export.inspection import inspect


@pytest.fixture
def bundle(library: Library, tmp_path: Path) -> Path:
    return shutil.copytree(library.bundle(BY_ID["stack-mixed"]), tmp_path / "bundle")


def edit(bundle: Path, change: Callable[[Any], None]) -> None:
    """Let ``change`` edit the manifest."""
    path = bundle / MANIFEST_FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def cross_state_outputs(content: Any) -> None:
    """Two states of one shape each leave by the other's output: a graph that computes nonsense."""
    by_key = {s["key"]: s for s in content["states"]}
    first, second = by_key["1.slstm.c"], by_key["1.slstm.n"]
    assert first["shape"] == second["shape"]
    first["output"], second["output"] = second["output"], first["output"]


def another_vocabulary(content: Any) -> None:
    content["outputs"][0]["shape"][-1] += 1


def another_start(content: Any) -> None:
    content["states"][0]["init"] = "ones"


def another_source(content: Any) -> None:
    content["source"]["name"] = "another"


def one_more_key(content: Any) -> None:
    content["tuning"] = 1


def test_what_export_wrote_is_unchanged(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert opened.is_unchanged() is True
    assert opened.sha256() == opened.manifest.sha256
    assert opened.model_path == bundle / MODEL_FILE
    assert set(opened.files()) == {MODEL_FILE, DATA_FILE, MANIFEST_FILE, "config.yaml"}
    facts = inspect(bundle)
    assert facts.data["is_unchanged"] is True
    assert facts.words["files"] == "as export wrote them"


@pytest.mark.parametrize(
    "change",
    [cross_state_outputs, another_vocabulary, another_start, another_source, one_more_key],
)
def test_a_changed_manifest_is_seen(bundle: Path, change: Callable[[Any], None]) -> None:
    edit(bundle, change)
    opened = Bundle.open(bundle)
    assert opened.is_unchanged() is False
    assert is_as_written(bundle, opened.manifest, opened.sha256()) is False
    facts = inspect(bundle)
    assert facts.data["is_unchanged"] is False
    assert facts.words["files"] == "CHANGED since export wrote them"


def test_order_and_spacing_of_a_manifest_are_free(bundle: Path) -> None:
    path = bundle / MANIFEST_FILE
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7))
    assert Bundle.open(bundle).is_unchanged() is True


def test_a_digest_that_is_corrupted_is_a_change(bundle: Path) -> None:
    edit(bundle, lambda content: content.update(manifest_sha256="0" * 64))
    assert Bundle.open(bundle).is_unchanged() is False


@pytest.mark.parametrize("name", [MODEL_FILE, DATA_FILE])
def test_one_changed_byte_is_seen(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    assert Bundle.open(bundle).is_unchanged() is False
    assert inspect(bundle).data["is_unchanged"] is False


def test_a_bundle_of_before_is_not_known_to_be_either(bundle: Path) -> None:
    """Without a digest of the files nothing is claimed; without its own, the files decide."""
    edit(bundle, lambda content: content.pop("manifest_sha256"))
    assert Bundle.open(bundle).is_unchanged() is True
    edit(bundle, lambda content: content.pop("sha256"))
    assert Bundle.open(bundle).is_unchanged() is None
    assert "does not know" in str(inspect(bundle).words["files"])


def test_a_digest_covers_all_but_itself() -> None:
    content = {"a": 1, "b": [1, 2]}
    assert own_digest({**content, "manifest_sha256": "x"}) == own_digest(content)
    assert own_digest({**content, "b": [2, 1]}) != own_digest(content)


def test_no_bundle_is_opened(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not an xlstm-export bundle"):
        Bundle.open(tmp_path)
