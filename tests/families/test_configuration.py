"""Where a block stack's configuration is found, what it refers to, and what may stand in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from tests.families.block_stack_checkpoints import edit_config, make_block_stack
from xlstm_export import pipeline
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.errors import CheckpointError
from xlstm_export.families.registry import find_family
from xlstm_export.model.storage import Storage


def fields_of(source: Source) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((source.path / "config.yaml").read_text())
    return values


def write(source: Source, values: object) -> Source:
    (source.path / "config.yaml").write_text(yaml.safe_dump(values))
    return source


def refusal(source: Source) -> str:
    with pytest.raises(CheckpointError) as caught:
        pipeline.read_checkpoint(source)
    return str(caught.value)


def logits(checkpoint: Checkpoint) -> np.ndarray:
    """Of upstream's module."""
    family = find_family(Source(checkpoint.files[0].parent))
    oracle = family.oracle(checkpoint, Storage("float64"))
    outputs, _ = oracle.run({"input_ids": np.array([[1, 2, 3, 4]])})
    return np.asarray(outputs["logits"])


@pytest.mark.parametrize("path", [("net",), ("model",), ("run", "network"), ("xlstm",)])
def test_the_only_section_with_blocks_is_found(tmp_path: Path, path: tuple[str, ...]) -> None:
    source, _ = make_block_stack(tmp_path)
    plain = pipeline.read_checkpoint(source)
    nested: Any = fields_of(source)
    for name in reversed(path):
        nested = {name: nested, "lr": 0.1}
    moved = pipeline.read_checkpoint(write(source, nested | {"training": {"steps": 3}}))
    assert moved.spec == plain.spec
    assert np.array_equal(logits(moved), logits(plain))


def test_several_sections_are_named_unless_one_is_model(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path)
    fields = fields_of(source)
    message = refusal(write(source, {"encoder": fields, "decoder": {"stack": fields}}))
    assert "(decoder.stack, encoder)" in message
    assert "--config" in message
    assert str(tmp_path / "config.yaml") in message
    pipeline.read_checkpoint(write(source, {"model": fields, "teacher": fields}))


def test_a_configuration_without_blocks_is_told_what_it_has(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path)
    write(source, {"training": {"lr": 1}, "dataset": "x", "model": {"name": "y"}})
    for given in (source, Source(tmp_path / "model.safetensors")):
        message = refusal(given)
        assert "config.yaml" in message
        assert "neither mlstm_block nor slstm_block" in message
        assert "it holds dataset, model, training" in message
    other = tmp_path / "other.yaml"
    (tmp_path / "config.yaml").rename(other)
    assert "other.yaml has neither" in refusal(Source(tmp_path, config=other))
    assert "there is no config.json or config.yaml" in refusal(source)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ((), "${model.context_length}"),
        ((), "${.context_length}"),
        (("mlstm_block", "mlstm"), "${...context_length}"),
        ((), "${..sizes[1]}"),
        ((), "${size}"),
    ],
)
def test_references_are_resolved_from_where_they_stand(
    tmp_path: Path, where: tuple[str, ...], text: str
) -> None:
    source, _ = make_block_stack(tmp_path, context_length=16, mlstm={"num_heads": 16})
    plain = pipeline.read_checkpoint(source)
    section = fields = fields_of(source)
    for part in where:
        section = section[part]
    name = "num_heads" if where else "embedding_dim"
    assert section[name] == 16
    section[name] = text
    fields["slstm_block"]["feedforward"]["act_fn"] = "g${rest}u"
    document = {"model": fields, "rest": "el", "sizes": [8, 16], "size": "${sizes.1}"}
    assert pipeline.read_checkpoint(write(source, document)).spec == plain.spec


@pytest.mark.parametrize("text", ["${a}", "${.dropout}", "${..x}", "${....x}", "${model}"])
def test_a_reference_to_nothing_or_itself_is_named(tmp_path: Path, text: str) -> None:
    source, _ = make_block_stack(tmp_path)
    document = {"model": fields_of(source) | {"dropout": text}, "a": "${b}", "b": "${a}"}
    message = refusal(write(source, document))
    assert f"{tmp_path / 'config.yaml'}: cannot resolve ${{" in message


RESOLVER = "${oc.env:XLSTM_TEST_SIZE,'16'}"


def test_a_resolver_asks_for_omegaconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "omegaconf", None)
    source, _ = make_block_stack(tmp_path)
    edit_config(source, embedding_dim=RESOLVER)
    message = refusal(source)
    assert f"cannot resolve {RESOLVER} without OmegaConf (pip install omegaconf)" in message
    assert str(tmp_path / "config.yaml") in message


def test_omegaconf_resolves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = make_block_stack(tmp_path)
    spec = pipeline.read_checkpoint(source).spec
    monkeypatch.setenv("XLSTM_TEST_DROPOUT", "0.25")
    document = {"model": fields_of(source), "which": "blocks", "sizes": {"blocks": 3}}
    document["model"] |= {
        "dropout": "${oc.env:XLSTM_TEST_DROPOUT}",
        "num_blocks": "${sizes.${which}}",
    }
    checkpoint = pipeline.read_checkpoint(write(source, document))
    assert (checkpoint.spec, checkpoint.fields.dropout) == (spec, 0.25)
    document["model"]["dropout"] = "${oc.env:XLSTM_TEST_NOTHING}"
    assert "XLSTM_TEST_NOTHING" in refusal(write(source, document))


def test_harmless_fields_pass(tmp_path: Path) -> None:
    """Those that public trainers write into every configuration."""
    source, _ = make_block_stack(tmp_path)
    plain = pipeline.read_checkpoint(source)
    edit_config(
        source, type="xLSTMLMModel", tags=["a", "b"], learning_rate=1e-3, checkpoint_blocks=True,
        mlstm_block__mlstm__backend="chunkwise", mlstm_block__mlstm__chunk_size=1024,
        mlstm_block__mlstm__return_last_state=False, position_embeddings="none",
        rope_base_frequency=10000, max_position_embeddings=2048,
    )  # fmt: skip
    extended = pipeline.read_checkpoint(source)
    assert extended.spec == plain.spec
    assert np.array_equal(logits(extended), logits(plain))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"position_embeddings": "rot_1d"}, "position_embeddings (rot_1d)"),
        ({"rope_base_frequency": 10000}, "rope_base_frequency"),
        ({"position_embeddings": "rot_1d", "rope_base_frequency": 5},
         "position_embeddings (rot_1d), rope_base_frequency"),
        ({"type": "xLSTMRMSModel"}, "type (xLSTMRMSModel)"),
        ({"mlstm_block__mlstm__backend": "chunkwise--native_siging"},
         "mlstm_block.mlstm.backend (chunkwise--native_siging)"),
        ({"slstm_block__slstm__num_head": 2, "mlstm_block__skip": 1, "norm": "rms",
          "slstm_block__feedforward__act": 1},
         "mlstm_block.skip, norm, slstm_block.feedforward.act, slstm_block.slstm.num_head"),
        ({"backend": "chunkwise"}, "backend"),
    ],
)  # fmt: skip
def test_a_field_that_may_compute_is_refused_by_its_path(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    source, _ = make_block_stack(tmp_path)
    edit_config(source, tags=["x"], **changes)
    message = refusal(source)
    assert f"{tmp_path / 'config.yaml'}: unknown fields: {named};" in message
    assert "another model" in message


@pytest.mark.parametrize("name", ["xlstm_config", "inner"])
def test_a_stack_wrapped_for_transformers(tmp_path: Path, name: str) -> None:
    source, _ = make_block_stack(tmp_path)
    plain = pipeline.read_checkpoint(source)
    expected = logits(plain)
    wrapper = {"model_type": "xlstm", "architectures": ["xLSTMForCausalLM"], "vocab_size": 11}
    (tmp_path / "config.json").write_text(json.dumps(wrapper | {name: fields_of(source)}))
    (tmp_path / "config.yaml").unlink()
    checkpoint = pipeline.read_checkpoint(source)
    assert checkpoint.spec == plain.spec
    assert checkpoint.files[0].name == "config.json"
    assert np.array_equal(logits(checkpoint), expected)
    with pytest.raises(CheckpointError, match=r"config\.json: .*--family block_stack"):
        pipeline.read_checkpoint(source, "hf")
    path = tmp_path / "model.safetensors"
    save_file({f"backbone.{key}": tensor for key, tensor in load_file(path).items()}, path)
    assert "give --prefix backbone." in refusal(source)
    prefixed = pipeline.read_checkpoint(Source(tmp_path, prefix="backbone"))
    assert np.array_equal(logits(prefixed), expected)


@pytest.mark.parametrize("lm", [False, True])
def test_weights_in_a_larger_model_without_configuration(tmp_path: Path, lm: bool) -> None:
    source, _ = make_block_stack(tmp_path / "a", lm=lm)
    path = tmp_path / "whole.safetensors"
    inner = {f"net.stack.{k}": v for k, v in load_file(tmp_path / "a/model.safetensors").items()}
    save_file(inner | {"output.bias": next(iter(inner.values())).clone()}, path)
    message = refusal(Source(path))
    assert "its configuration is missing" in message
    assert "--config" in message
    assert "give --prefix net.stack. too" in message
    found = Source(path, config=tmp_path / "a" / "config.yaml", prefix="net.stack.")
    assert pipeline.read_checkpoint(found).spec == pipeline.read_checkpoint(source).spec
    save_file(load_file(tmp_path / "a/model.safetensors"), path)
    assert "--prefix" not in refusal(Source(path))
