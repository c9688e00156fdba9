"""``xlstm_export.json``: its keys, and what readers forgive and refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlstm_export.bundle.low_bit import LowBit
from xlstm_export.bundle.manifest import (
    MANIFEST_FILE,
    Manifest,
    OpsInfo,
    SourceInfo,
    StateInfo,
    TensorInfo,
    read_manifest,
    write_manifest,
)
from xlstm_export.errors import BundleError

MANIFEST = Manifest(
    format_version=1,
    family="hf",
    dtype="float16",
    opset=18,
    ops=OpsInfo("ai.xlstm", 1),
    inputs=(
        TensorInfo("input_ids", "int64", ("batch", "sequence")),
        TensorInfo("sequence_lengths", "int32", ("batch",)),
    ),
    outputs=(TensorInfo("logits", "float32", ("batch", "sequence", 61)),),
    states=(
        StateInfo(
            "0.mlstm.m", "past.0.mlstm.m", "present.0.mlstm.m", ("batch", 2), "float32", "zeros"
        ),
    ),
    source=SourceInfo("xLSTM-7b", "0" * 64),
    versions={"onnx": "1.17"},
    runs_on=("onnxruntime-cpu",),
    logits="last",
    ragged=True,
)


def edited(folder: Path, **changes: Any) -> Path:
    """A folder with the manifest changed at the top level; a value of ... removes the key."""
    write_manifest(MANIFEST, folder)
    path = folder / MANIFEST_FILE
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))
    return folder


def read(folder: Path) -> Manifest:
    """The manifest of ``folder`` without its own digest, which only what is written has."""
    return replace(read_manifest(folder), manifest_sha256="")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_manifest(MANIFEST, tmp_path)
    assert read(tmp_path) == MANIFEST


def test_keys_that_other_runtimes_rely_on(tmp_path: Path) -> None:
    write_manifest(MANIFEST, tmp_path)
    content = json.loads((tmp_path / MANIFEST_FILE).read_text())
    assert set(content) == {
        "format_version", "family", "dtype", "opset", "ops", "inputs", "outputs", "states",
        "source", "versions", "runs_on", "logits", "ragged", "sha256",
        "data_bytes", "manifest_sha256", "continuation", "forecast", "numerics",
        "low_bit", "step_bytes",
    }  # fmt: skip
    assert set(content["ops"]) == {"domain", "version"}
    assert set(content["source"]) == {"name", "sha256"}
    assert set(content["inputs"][0]) == set(content["outputs"][0]) == {"name", "dtype", "shape"}
    assert set(content["states"][0]) == {"key", "input", "output", "shape", "dtype", "init"}
    assert content["states"][0]["shape"] == ["batch", 2]


def test_unknown_keys_are_ignored_at_every_level(tmp_path: Path) -> None:
    states = [{**vars(MANIFEST.states[0]), "layout": "row"}]
    ops = {"domain": "ai.xlstm", "version": 1, "library": "x.so"}
    assert read(edited(tmp_path, tuning={"a": 1}, ops=ops, states=states)) == MANIFEST


def test_later_keys_have_defaults(tmp_path: Path) -> None:
    inputs = [vars(MANIFEST.inputs[0])]
    manifest = read_manifest(edited(tmp_path, logits=..., ragged=..., inputs=inputs))
    assert (manifest.logits, manifest.ragged) == ("all", False)


def test_newer_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"xlstm_export\.json: format_version 2 .* upgrade"):
        read_manifest(edited(tmp_path, format_version=2))


def low_bit(**changes: Any) -> dict[str, Any]:
    return {"bits": 4, "block_size": 32, **changes}


def test_weights_in_few_bits_are_described(tmp_path: Path) -> None:
    manifest = read(edited(tmp_path, low_bit=low_bit(wide=["head.weight"])))
    assert manifest.low_bit == LowBit(4, 32, wide=("head.weight",))


def test_a_newer_kind_of_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"weights in 2 bits, which .* upgrade xlstm-export"):
        read_manifest(edited(tmp_path, low_bit=low_bit(bits=2)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"low_bit": low_bit(block_size=48)}, "block_size 48"),
        ({"low_bit": low_bit(block_size=0)}, "block_size 0"),
        ({"low_bit": {"bits": 4}}, "block_size"),
        ({"low_bit": low_bit(wide="head")}, "'head' is no list"),
        ({"format_version": ...}, "format_version"),
        ({"format_version": "1"}, "damaged"),
        ({"format_version": None}, "damaged"),
        ({"family": ...}, "family"),
        ({"opset": "18"}, "opset"),
        ({"inputs": {}}, "damaged"),
        ({"inputs": []}, "damaged"),
        ({"outputs": []}, "damaged"),
        ({"inputs": [{"name": "input_ids"}]}, "damaged"),
        ({"states": [{"key": "x"}]}, "damaged"),
        ({"versions": [1]}, "versions"),
        ({"dtype": "float99"}, "dtype 'float99'"),
        ({"runs_on": "onnxruntime-cpu"}, "'onnxruntime-cpu' is no list"),
        ({"ragged": False}, "sequence_lengths"),
        ({"inputs": [{"name": "x", "dtype": "float99", "shape": ["batch"]}]}, "float99"),
        ({"outputs": [{"name": "x", "dtype": "float32", "shape": []}]}, "x: dtype 'float32'"),
        ({"outputs": [{"name": "x", "dtype": "float32", "shape": "ab"}]}, "'ab' is no list"),
    ],
)
def test_damaged_fields(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=rf"{MANIFEST_FILE}: damaged manifest.*") as caught:
        read_manifest(edited(tmp_path, **changes))
    assert words in str(caught.value)
    assert "export again" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "float99"),
        *(("shape", v) for v in ("batch", 5, None, [], ["batch"], [2, 2], ["batch", "x"],
                                 ["batch", 0], ["batch", 1.5], ["batch", 10**30])),
    ],
)  # fmt: skip
def test_states_that_cannot_be(tmp_path: Path, field: str, value: Any) -> None:
    states = [{**vars(MANIFEST.states[0]), field: value}]
    with pytest.raises(BundleError, match=rf"{MANIFEST_FILE}: damaged manifest.*export again"):
        read_manifest(edited(tmp_path, states=states))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b"[" * 100_000])
def test_damaged_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(BundleError, match="damaged manifest"):
        read_manifest(tmp_path)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not an xlstm-export bundle"):
        read_manifest(tmp_path)
    with pytest.raises(BundleError, match="no such folder"):
        read_manifest(tmp_path / "absent")


def test_language_models_take_ids() -> None:
    assert MANIFEST.is_language_model


def test_a_state_has_its_shape_and_its_first_value() -> None:
    state = replace(MANIFEST.states[0], shape=("batch", 2, 3), dtype="float16")
    assert state.sized(5) == (5, 2, 3)
    value = state.initial(5)
    assert (value.shape, value.dtype) == ((5, 2, 3), np.float16)
    assert not value.any()


def test_states_that_start_otherwise_are_refused() -> None:
    """Never zeros in silence, where a later version wrote something else."""
    state = replace(MANIFEST.states[0], init="ones")
    with pytest.raises(BundleError, match=r"state 0\.mlstm\.m starts as 'ones'.* upgrade"):
        state.initial(1)
