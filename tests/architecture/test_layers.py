"""A kind of layer is three files of one name; a new one needs no edit elsewhere."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import xlstm_export.lowering.layers
import xlstm_export.model.layers
import xlstm_export.reference.layers
from tests.architecture.toy.model.layers.leaky_sum import LeakySum
from xlstm_export.bundle.bundle import Bundle
from xlstm_export.bundle.checksum import bundle_sha256
from xlstm_export.bundle.manifest import write_manifest
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.lowering.describe import describe_graph
from xlstm_export.lowering.lower import lower_model
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.lowering.write import check_model, write_model
from xlstm_export.model.layer import Composite
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.model.spec import ModelSpec, logits, token_ids
from xlstm_export.model.weights import Weight
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.validation.tolerance import judge

STATIONS = {
    "model": xlstm_export.model.layers,
    "lowering": xlstm_export.lowering.layers,
    "reference": xlstm_export.reference.layers,
}
KINDS = sorted(m.name for m in pkgutil.iter_modules(STATIONS["model"].__path__))
VOCABULARY, SIZE = 31, 12


@pytest.mark.parametrize("station", STATIONS)
def test_every_station_has_a_file_for_every_kind(station: str) -> None:
    assert sorted(m.name for m in pkgutil.iter_modules(STATIONS[station].__path__)) == KINDS
    assert len(KINDS) >= 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_says_its_weights_and_its_states_itself(kind: str) -> None:
    """What carries no state says so; nothing is inherited from a base that says it for all."""
    module = importlib.import_module(f"xlstm_export.model.layers.{kind}")
    name = kind.replace("_", "").lower()
    (layer,) = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__name__.lower() == name
    ]
    assert dataclasses.is_dataclass(layer)
    assert layer.__bases__ == (object,)
    assert {"weights", "states", "pointwise"} <= vars(layer).keys()
    if "parts" in vars(layer):
        assert issubclass(layer, Composite)
    for station, function in (("lowering", "emit"), ("reference", "evaluate")):
        found = importlib.import_module(f"xlstm_export.{station}.layers.{kind}")
        assert callable(getattr(found, function))


def _toy() -> tuple[ModelSpec, dict[str, Weight]]:
    random = np.random.default_rng(0)
    spec = ModelSpec(
        "toy",
        (token_ids(),),
        (
            ("embedding", TokenEmbedding(VOCABULARY, SIZE)),
            ("layers.0.leaky", Residual(Norm("rms", 1e-5, SIZE), LeakySum(SIZE), "mixer_norm")),
            ("layers.1.leaky", Residual(Norm("layer", 1e-5, SIZE), LeakySum(SIZE), "mixer_norm")),
            ("head", LogitHead(VOCABULARY, SIZE, soft_cap=3.0, tied_to="embedding")),
        ),
        (logits(VOCABULARY),),
    )
    weights = {}
    for name, wanted in spec.weights().items():
        numbers = random.standard_normal(wanted.shape).astype(np.float32)
        numbers = np.abs(numbers) % 1 if name.endswith("decay") else numbers
        if not wanted.optional:
            weights[name] = Weight(
                wanted.shape, "float32", (name,), lambda numbers=numbers: numbers.copy()
            )
    return spec, weights


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_kind_the_library_has_never_seen(tmp_path: Path, dtype: str) -> None:
    """Three files in the tests: exported, run with carried states, judged by the rule."""
    spec, weights = _toy()
    options = LoweringOptions(dtype)
    (tmp_path / "source").write_text("toy")
    checkpoint = Checkpoint(spec, weights, (tmp_path / "source",), weights)
    model = lower_model(spec, weights, options)
    manifest = describe_graph(model, checkpoint, Source(tmp_path / "source"), options)
    check_model(write_model(model, tmp_path))
    write_manifest(replace(manifest, sha256=bundle_sha256(tmp_path)), tmp_path)
    bundle = Bundle.open(tmp_path)
    assert bundle.is_unchanged()
    assert [s.key for s in bundle.manifest.states] == ["0.leaky.y", "1.leaky.y"]
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (3, 20))
    models = [
        ReferenceModel(spec, weights, dtype, compute, "recurrent") for compute in ("float64", dtype)
    ]
    runners = [OrtSession(tmp_path, threads=1), *models]
    found = []
    for runner in runners:
        first, states = runner.run({"input_ids": ids[:, :7]})
        second, states = runner.run({"input_ids": ids[:, 7:]}, states)
        output = np.concatenate([first["logits"], second["logits"]], axis=1)
        found.append({"logits": output, **states})
    for name in found[0]:
        kind = dtype if name == "logits" else "float32"
        judgement = judge(found[0][name], found[1][name], found[2][name], None, kind)
        assert judgement.ok, (name, judgement)
