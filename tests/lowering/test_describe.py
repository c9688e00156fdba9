"""What a manifest says of a graph and of its source."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.families.block_stack_checkpoints import edit_config, edit_tensors, make_block_stack
from tests.families.large_checkpoints import make_hf
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.checkpoint.source import Source, fingerprint
from xlstm_export.pipeline import export, read_checkpoint


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return make_block_stack(tmp_path / "source")[0]


def print_of(source: Source) -> str:
    return fingerprint(read_checkpoint(source))


def test_the_fingerprint_is_that_of_the_bytes(source: Source, tmp_path: Path) -> None:
    before = print_of(source)
    assert len(before) == 64
    shutil.copytree(source.path, tmp_path / "copy")
    assert print_of(Source(tmp_path / "copy")) == before
    (source.path / "README.md").write_text("other files do not count")
    assert print_of(source) == before
    manifest = export(source.path, tmp_path / "bundle").manifest
    assert manifest.source.sha256 == before
    assert manifest.source.name == "source"


def test_the_fingerprint_changes_with_one_number(source: Source) -> None:
    before = print_of(source)
    key = "xlstm_block_stack.blocks.0.xlstm_norm.weight"
    edit_tensors(source, {key: torch.full((16,), 0.25)})
    changed = print_of(source)
    assert changed != before
    edit_config(source, dropout=0.5)
    assert print_of(source) not in (before, changed)


def test_bytes_that_move_between_files_are_noticed(tmp_path: Path) -> None:
    """Two shards swapped under each other's name are another source."""
    folder = make_hf(tmp_path / "source", shards=2).source.path
    before = print_of(Source(folder))
    first, second = sorted(folder.glob("*.safetensors"))
    spare = folder / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    assert print_of(Source(folder)) != before


def test_two_models_of_one_file_are_two_sources(source: Source) -> None:
    """And what was told without a prefix stays as it was."""
    path = source.path / "model.safetensors"
    tensors = load_file(path)
    save_file({f"student.{name}": tensor for name, tensor in tensors.items()}, path)
    alone = print_of(replace(source, prefix="student"))
    files = b"".join(
        hashlib.sha256((source.path / name).read_bytes()).digest()
        for name in ("config.yaml", path.name)
    )
    assert alone == hashlib.sha256(files).hexdigest()
    both = {f"{who}.{n}": x.clone() for who in ("student", "teacher") for n, x in tensors.items()}
    save_file(both, path)
    found = [print_of(replace(source, prefix=name)) for name in ("student", "teacher", "student.")]
    assert len({alone, *found}) == 3
    assert found[0] == found[2]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_manifest_describes_the_graph(source: Source, tmp_path: Path, dtype: str) -> None:
    made = export(source.path, tmp_path / "bundle", dtype=dtype, opset=19, ragged=True)
    manifest = read_manifest(made.path)
    assert manifest == made.manifest
    assert (manifest.family, manifest.dtype, manifest.opset) == ("block_stack", dtype, 19)
    assert [i.name for i in manifest.inputs] == ["input_ids", "sequence_lengths"]
    assert [(o.name, o.shape) for o in manifest.outputs] == [("logits", ("batch", "sequence", 11))]
    assert {s.dtype for s in manifest.states} == {"float32"}
    assert ("onnxruntime-cpu" in manifest.runs_on) == (dtype != "bfloat16")
    import onnx

    graph = onnx.load(made.model_path, load_external_data=False).graph
    states = [s.input for s in manifest.states]
    assert {i.name for i in graph.input} == {i.name for i in manifest.inputs} | set(states)
    outputs = [s.output for s in manifest.states]
    assert {o.name for o in graph.output} == {"logits", *outputs}
    for tensor in graph.input:
        if tensor.name in states:
            shape = [d.dim_param or d.dim_value for d in tensor.type.tensor_type.shape.dim]
            assert tuple(shape) == manifest.states[states.index(tensor.name)].shape


def test_two_exports_are_equal_byte_for_byte(source: Source, tmp_path: Path) -> None:
    bundles = [export(source.path, tmp_path / n).path for n in ("a", "b")]
    for name in ("model.onnx", "model.onnx.data", "xlstm_export.json"):
        assert (bundles[0] / name).read_bytes() == (bundles[1] / name).read_bytes()
