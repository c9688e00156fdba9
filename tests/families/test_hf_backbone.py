"""An xLSTMModel saved without the head of a language model: token ids to hidden states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.xlstm.modeling_xlstm import xLSTMModel

import xlstm_export as xe
from tests.families.large_checkpoints import assert_splits_agree, make_hf, rms_difference
from tests.families.upstream import upstream
from xlstm_export import pipeline
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import BundleError
from xlstm_export.families import hf

IDS = np.random.default_rng(1).integers(0, 61, size=(2, 130))


@pytest.mark.parametrize("config", [{}, {"use_bias": True, "weight_mode": "fused", "shards": 2}])
def test_the_oracle_is_upstreams_xlstmmodel(tmp_path: Path, config: dict[str, Any]) -> None:
    made = make_hf(tmp_path, bare=True, embedding_dim=128, **config)  # upstream's cache needs it
    spec = pipeline.read_checkpoint(made.source).spec
    assert [t.name for t in (*spec.inputs, *spec.outputs)] == ["input_ids", "last_hidden_state"]
    oracle = upstream(hf.FAMILY, made.source)
    assert "xLSTMModel (" in oracle.oracle.name
    hidden, _ = oracle.run(IDS)
    assert isinstance(made.model, xLSTMModel)
    with torch.no_grad():
        theirs = made.model(torch.from_numpy(IDS), use_cache=True).last_hidden_state
    assert rms_difference(theirs.double().numpy(), hidden) < 5e-6
    assert_splits_agree(oracle, IDS, [1, 65, 66, 129])


def test_it_is_recognised_by_its_class_alone(tmp_path: Path) -> None:
    made = make_hf(tmp_path, bare=True)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    assert values.pop("model_type") == "xlstm"
    path.write_text(json.dumps(values | {"architectures": ["xLSTMModel"]}))
    assert hf.detect(made.source)


def test_the_backbone_of_a_language_model_is_the_same(tmp_path: Path) -> None:
    whole, bare = make_hf(tmp_path / "whole"), make_hf(tmp_path / "bare", bare=True)
    prefixed = Source(whole.source.path, prefix="backbone")
    assert pipeline.read_checkpoint(prefixed).spec == pipeline.read_checkpoint(bare.source).spec
    ours, _ = upstream(hf.FAMILY, prefixed).run(IDS)
    assert np.array_equal(ours, upstream(hf.FAMILY, bare.source).run(IDS)[0])


def test_its_bundle_is_validated_and_says_what_it_is(tmp_path: Path) -> None:
    source = make_hf(tmp_path / "source", bare=True).source
    facts = xe.inspect(source.path)
    assert facts.words["head"] == "none: yields hidden states"
    assert "last_hidden_state" in facts.words["yields"]
    bundle = xe.export(source.path, tmp_path / "out")
    report = xe.validate(bundle, source.path)
    assert report.verdict == "validated"
    assert "last_hidden_state" in {result.name.split(" ")[0] for result in report.results}
    outputs, _ = xe.open(bundle).run({"input_ids": IDS})
    expected, _ = upstream(hf.FAMILY, source).run(IDS)
    assert outputs["last_hidden_state"].shape == expected.shape
    with pytest.raises(BundleError, match=r"yields last_hidden_state.*open\(BUNDLE\)"):
        xe.generate(bundle, [1, 2])
    np.save(tmp_path / "e.npy", np.zeros((1, 2, 64), np.float32))
    with pytest.raises(BundleError, match=r"takes tokens, not embeddings; run it by xlstm_export"):
        xe.run_embeddings(bundle, tmp_path / "e.npy", tmp_path / "o.npy")
