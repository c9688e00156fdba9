"""A bundle in ONNX Runtime: what it refuses, and what it leaves on the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.terminal import succeed
from tests.families.large_checkpoints import make_hf
from xlstm_export.bundle.manifest import MANIFEST_FILE
from xlstm_export.errors import BundleError, InputError
from xlstm_export.runtime.ort import OrtSession


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders plain and ragged."""
    folder = tmp_path_factory.mktemp("ort-bundles")
    make_hf(folder / "source", vocab_size=64)
    succeed("export", folder / "source", "-o", folder / "plain")
    succeed("export", folder / "source", "-o", folder / "ragged", "--ragged")
    return folder


def test_lengths_are_for_ragged_bundles(bundles: Path) -> None:
    """A padded batch must not run through the padding in silence."""
    ids = np.zeros((2, 3), np.int64)
    feeds = {"input_ids": ids, "sequence_lengths": np.array([1, 3], np.int32)}
    with pytest.raises(InputError, match="sequence_lengths: is for bundles of export --ragged"):
        OrtSession(bundles / "plain").run(feeds)


def test_lengths_of_another_type(bundles: Path) -> None:
    session, ids = OrtSession(bundles / "ragged"), np.zeros((2, 3), np.int64)
    lengths = np.array([1, 3])
    expected, got = (
        session.run({"input_ids": ids, "sequence_lengths": given})[0]["logits"]
        for given in (lengths.astype(np.int32), lengths)
    )
    np.testing.assert_array_equal(got, expected)


def test_no_telemetry(bundles: Path, tmp_path: Path) -> None:
    """ONNX Runtime keeps an identifier of the device in the user's cache, unless told not to."""
    variables = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY",)}
    variables |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "xlstm_export_cli.main", "run", bundles / "plain"]
    done = subprocess.run(
        [*command, "--ids", "1", "-n", "1"], env=variables, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name.lower()]


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [("states", "dtype", "float16"), ("states", "shape", ["batch", 4, 9, 9]),
     ("inputs", "dtype", "int32"), ("outputs", "shape", ["batch", "sequence", 65])],
)  # fmt: skip
def test_a_manifest_that_is_not_the_graphs(
    bundles: Path, tmp_path: Path, part: str, key: str, value: object
) -> None:
    bundle = shutil.copytree(bundles / "plain", tmp_path / "bundle")
    manifest = json.loads((bundle / MANIFEST_FILE).read_text())
    manifest[part][0][key] = value
    (bundle / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="does not belong to the manifest beside it"):
        OrtSession(bundle)


def test_a_folder_whose_name_is_no_text(bundles: Path, tmp_path: Path) -> None:
    """Names are bytes: the weights are found in one that UTF-8 cannot spell."""
    bundle = shutil.copytree(bundles / "plain", tmp_path / os.fsdecode(b"odd\xff"))
    feeds = {"input_ids": np.zeros((1, 3), np.int64)}
    expected, _ = OrtSession(bundles / "plain").run(feeds)
    got, _ = OrtSession(bundle).run(feeds)
    np.testing.assert_array_equal(got["logits"], expected["logits"])
