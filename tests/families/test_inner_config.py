"""A configuration inside a training checkpoint: found, compared, and named where it is at fault."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import load_file

from tests.families.block_stack_checkpoints import make_block_stack
from tests.families.large_checkpoints import make_xlstm_large
from xlstm_export import pipeline
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.errors import CheckpointError

FAMILIES: dict[str, Callable[[Path], Source]] = {
    "block_stack": lambda folder: make_block_stack(folder)[0],
    "xlstm_large": lambda folder: make_xlstm_large(folder).source,
}

Wrap = Callable[[dict[str, Any]], dict[str, Any]]

PLACES: dict[str, tuple[Wrap, str]] = {
    "dict": (lambda c: {"config": c}, "config"),
    "Lightning": (lambda c: {"hyper_parameters": {"lr": 1, "model": c}}, "hyper_parameters"),
    "arguments": (lambda c: {"args": argparse.Namespace(seed=1, **c)}, "args"),
    "OmegaConf": (lambda c: {"cfg": OmegaConf.create({"model": c, "run": "x"})}, "cfg"),
    "twice": (lambda c: {"model_config": c, "hyper_parameters": {"net": c}}, "model_config"),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(family: str, folder: Path) -> tuple[Checkpoint, dict[str, Any], dict[str, torch.Tensor]]:
    """A checkpoint in folder/plain: as read, its configuration, and its tensors."""
    source = FAMILIES[family](folder / "plain")
    fields: dict[str, Any] = yaml.safe_load((source.path / "config.yaml").read_text())
    tensors = load_file(source.path / "model.safetensors")
    return pipeline.read_checkpoint(source), fields, tensors


def save(path: Path, tensors: dict[str, torch.Tensor], **entries: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save({"epoch": 3, "state_dict": tensors, **entries}, path)
    return path


def refusal(source: Source) -> str:
    with pytest.raises(CheckpointError) as caught:
        pipeline.read_checkpoint(source)
    return str(caught.value)


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found(tmp_path: Path, family: str, place: str) -> None:
    plain, fields, tensors = made(family, tmp_path)
    wrap, entry = PLACES[place]
    path = save(tmp_path / "run" / "last.ckpt", tensors, **wrap(fields))
    for given in (path, path.parent):
        checkpoint = pipeline.read_checkpoint(Source(given))
        assert checkpoint.spec == plain.spec
        assert checkpoint.files == (path,)
        assert f"the configuration was found in {path}: {entry}" in checkpoint.notes
    for name, weight in plain.weights.items():
        np.testing.assert_array_equal(checkpoint.weights[name].load(), weight.load())


def test_the_configuration_object_of_upstream(tmp_path: Path) -> None:
    """What a training script saves that knows nothing of YAML."""
    source, module = make_block_stack(tmp_path / "plain")
    tensors = load_file(source.path / "model.safetensors")
    path = save(tmp_path / "model.pt", tensors, config=module.config)
    checkpoint = pipeline.read_checkpoint(Source(path))
    assert checkpoint.spec == pipeline.read_checkpoint(source).spec
    large, model = make_xlstm_large(tmp_path / "large")
    tensors = load_file(large.path / "model.safetensors")
    path = save(tmp_path / "model.pt", tensors, config=model.config)
    assert pipeline.read_checkpoint(Source(path)).spec == pipeline.read_checkpoint(large).spec


def test_references_start_at_the_entry(tmp_path: Path) -> None:
    plain, fields, tensors = made("block_stack", tmp_path)
    size, fields["embedding_dim"] = fields["embedding_dim"], "${sizes.width}"
    config = OmegaConf.create({"model": fields, "sizes": {"width": size}})
    path = save(tmp_path / "a.ckpt", tensors, hyper_parameters=config)
    assert pipeline.read_checkpoint(Source(path)).spec == plain.spec


def test_a_fault_in_it_is_named_with_its_place(tmp_path: Path, family: str) -> None:
    _, fields, tensors = made(family, tmp_path)
    path = tmp_path / "a.ckpt"
    for change, words in (
        ({"num_blocks": 7}, "num_blocks is 7, but"),
        ({"rope": 1}, "unknown fields: rope"),
        ({"embedding_dim": Path("x")}, "embedding_dim"),
    ):
        save(path, tensors, config=fields | change)
        message = refusal(Source(path))
        assert message.startswith(f"{path}: config: ")
        assert words in message


def test_a_file_wins_and_what_contradicts_it_is_told(tmp_path: Path, family: str) -> None:
    plain, fields, tensors = made(family, tmp_path)
    folder = tmp_path / "run"
    path = save(folder / "last.ckpt", tensors, config=fields | {"num_blocks": 7})
    given = tmp_path / "plain" / "config.yaml"
    (folder / "config.yaml").write_bytes(given.read_bytes())
    for source in (Source(folder), Source(path, config=given)):
        config = source.config or folder / "config.yaml"
        checkpoint = pipeline.read_checkpoint(source)
        assert (checkpoint.spec, checkpoint.files) == (plain.spec, (config, path))
        blocks = fields["num_blocks"]
        assert checkpoint.notes == (
            f"{path}: config: contradicts {config}, which is used: num_blocks is 7, not {blocks}",
        )
    save(path, tensors, config=fields | {"rope": 1})
    (note,) = pipeline.read_checkpoint(Source(folder)).notes
    assert note.startswith(f"{path}: config: unknown fields: rope")
    assert note.endswith(f"(not used: {folder / 'config.yaml'} is)")
    save(path, tensors, config=fields)
    assert pipeline.read_checkpoint(Source(folder)).notes == ()


def test_a_file_of_other_things_does_not_hide_it(tmp_path: Path, family: str) -> None:
    plain, fields, tensors = made(family, tmp_path)
    save(tmp_path / "run" / "last.ckpt", tensors, config=fields)
    (tmp_path / "run" / "config.yaml").write_text("trainer: {steps: 3}\n")
    assert pipeline.read_checkpoint(Source(tmp_path / "run")).spec == plain.spec


def test_several_that_differ_are_named(tmp_path: Path, family: str) -> None:
    _, fields, tensors = made(family, tmp_path)
    path = save(tmp_path / "a.ckpt", tensors, config=fields, cfg=fields | {"num_blocks": 7})
    message = refusal(Source(path))
    assert f"{path}: config and {path}: cfg: configurations that differ" in message
    assert "--config" in message
    save(path, tensors, config={"teacher": fields, "student": fields})
    message = refusal(Source(path))
    assert message.startswith(f"{path}: config: ")
    assert "student" in message
    assert "in several places" in message


def test_another_family_s_sizes_are_no_xlstm_large(tmp_path: Path) -> None:
    _, fields, tensors = made("xlstm_large", tmp_path)
    path = save(tmp_path / "a.ckpt", tensors, config=fields | {"model_type": "xlstm"})
    assert "not recognised as an xLSTM checkpoint" in refusal(Source(path))
