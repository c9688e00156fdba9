"""Networks as bundles: judged by the rule, for other sizes than the examples'; refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import xlstm_export as xe
from tests.modules.networks import (
    CHANNELS,
    BesideALoop,
    Branching,
    Classifier,
    Detector,
    Flipped,
    HandWritten,
    Rounding,
    large_model,
    made,
    series,
)
from xlstm_export.ops.catalog import DOMAIN, PLUGIN_ATTRIBUTES


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, xe.Bundle]:
    network = made(Classifier)
    return network, xe.export_module(network, series(), tmp_path_factory.mktemp("a") / "out")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, xe.Bundle]:
    network = made(Detector)
    out = tmp_path_factory.mktemp("b") / "out"
    return network, xe.export_module(network, {"x": series(1)}, out, states=True)


def test_ends_are_named_and_free(classifier: tuple[Any, xe.Bundle]) -> None:
    manifest = classifier[1].manifest
    ends = [(t.name, t.dtype, t.shape) for t in (*manifest.inputs, *manifest.outputs)]
    assert ends == [
        ("x", "float32", ("batch", "sequence", CHANNELS)), ("output", "float32", ("batch", 3)),
    ]  # fmt: skip
    assert (manifest.family, manifest.states) == ("module", ())
    assert manifest.source.name == "tests.modules.networks.Classifier"
    assert classifier[1].is_unchanged()


def test_the_graph_is_ours(classifier: tuple[Any, xe.Bundle]) -> None:
    """Recurrences as nodes of the main graph with every attribute, bodies, nothing of torch."""
    model = onnx.load(str(classifier[1].model_path))
    nodes = [node for node in model.graph.node if node.domain == DOMAIN]
    assert [node.name for node in nodes] == [
        f"/stack/blocks.{block}/xlstm/{name}"
        for block, cell in enumerate(("mlstm_cell/XlstmMLSTM", "slstm_cell/XlstmSLSTM") * 2)
        for name in ("conv1d/XlstmCausalConv1d", cell)
        if block < 3
    ]
    assert {f.name for f in model.functions} == {node.op_type for node in nodes}
    for node in nodes:
        assert set(PLUGIN_ATTRIBUTES) < {a.name for a in node.attribute}
    assert {node.domain for node in model.graph.node} == {"", DOMAIN}
    text = classifier[1].model_path.read_bytes()
    assert b"site-packages" not in text
    assert b"pkg.torch" not in text
    weights = {w.name for w in model.graph.initializer}
    assert "stack.blocks.0.xlstm.mlstm_cell.igate.bias" in weights


@pytest.mark.parametrize("native", [True, False])
def test_a_classifier_matches_for_other_sizes(
    classifier: tuple[Any, xe.Bundle], native: bool
) -> None:
    network, bundle = classifier
    session = xe.open(bundle, native=native, threads=1)
    for rows, steps in ((1, 1), (3, 7), (2, 90)):  # upstream's own context_length is 64
        if steps > 64:
            found, _ = session.run({"x": series(rows, steps).numpy()})
            assert np.isfinite(found["output"]).all()
            continue
        given = series(rows, steps)
        found, states = session.run({"x": given.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found["output"], network(given), rtol=2e-4, atol=2e-5)
        assert not states
    report = xe.validate_module(bundle, network, series(), native=native, threads=1)
    assert report.verdict == "validated", report.in_order()[0]
    assert report.source_matches_bundle
    assert {r.name for r in report.results} >= {"output"}


def test_states_are_the_networks_inputs_and_outputs(detector: tuple[Any, xe.Bundle]) -> None:
    manifest = detector[1].manifest
    assert [t.name for t in manifest.outputs] == ["score", "last"]
    assert [(s.key, s.shape) for s in manifest.states][:4] == [
        ("mixer.conv1d.x", ("batch", 3, 64)), ("mixer.mlstm_cell.C", ("batch", 2, 32, 32)),
        ("mixer.mlstm_cell.n", ("batch", 2, 32)), ("mixer.mlstm_cell.m", ("batch", 2)),
    ]  # fmt: skip
    assert [s.key.rpartition(".")[0] for s in manifest.states[-4:]] == ["memory.slstm_cell"] * 4
    assert manifest.states[0].input == "past.mixer.conv1d.x"
    assert manifest.states[0].output == "present.mixer.conv1d.x"


@pytest.mark.parametrize("cut", [1, 6, 13])
def test_parts_with_carried_states_are_the_whole(detector: tuple[Any, xe.Bundle], cut: int) -> None:
    session, x = xe.open(detector[1], threads=1), series(3, 14).numpy()
    whole, after = session.run({"x": x})
    first, states = session.run({"x": x[:, :cut]})
    second, states = session.run({"x": x[:, cut:]}, states)
    joined = np.concatenate([first["score"], second["score"]], 1)
    np.testing.assert_allclose(joined, whole["score"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(second["last"], whole["last"], rtol=1e-4, atol=1e-5)
    for key, state in after.items():
        np.testing.assert_allclose(states[key], state, rtol=1e-4, atol=1e-4)


def test_a_streaming_network_is_validated(detector: tuple[Any, xe.Bundle]) -> None:
    network, bundle = detector
    report = xe.validate_module(bundle, network, series(1), threads=1)
    assert report.verdict == "validated", report.in_order()[0]
    names = {r.name for r in report.results}
    assert {"score", "last", "mixer.mlstm_cell.C", "memory.slstm_cell.m"} <= names
    assert "carried states" in report.fed


@pytest.mark.parametrize("seed", range(3))
def test_a_network_that_rounds_is_validated(tmp_path: Path, seed: int) -> None:
    """What falls to the other side of a rounding is no fault, however rare it is."""
    network = made(Rounding, seed)
    bundle = xe.export_module(network, series(), tmp_path / "out", states=True)
    report = xe.validate_module(bundle, network, series(), threads=1, seed=seed)
    assert report.verdict == "validated", report.in_order()[0]


def test_a_changed_weight_is_seen(detector: tuple[Any, xe.Bundle]) -> None:
    """One number of a recurrent matrix, and of a gate."""
    bundle = detector[1]
    for name in ("memory.slstm_cell._recurrent_kernel_", "mixer.mlstm_cell.fgate.weight"):
        other = made(Detector)
        with torch.no_grad():
            other.get_parameter(name).view(-1)[3] += 0.05
        report = xe.validate_module(bundle, other, series(1), threads=1)
        assert report.verdict == "failed", name
        assert not report.source_matches_bundle


def test_another_network_is_told(detector: tuple[Any, xe.Bundle]) -> None:
    with pytest.raises(xe.BundleError, match="other outputs than the network"):
        xe.validate_module(detector[1], made(Classifier), series())


def test_the_large_model_with_states_in_half_precision(tmp_path: Path) -> None:
    model = large_model()
    tokens = torch.randint(0, 11, (2, 12), generator=torch.Generator().manual_seed(2))
    bundle = xe.export_module(
        model, {"x": tokens}, tmp_path / "out", states=True, dtype="fp16",
        output_names=["logits"], dynamic_shapes={"x": {0: "batch", 1: "sequence"}},
    )  # fmt: skip
    assert bundle.manifest.dtype == "float16"
    assert [t.name for t in bundle.manifest.outputs] == ["logits"]
    assert {s.dtype for s in bundle.manifest.states} == {"float32"}
    report = xe.validate_module(bundle, model, {"x": tokens}, threads=1)
    assert report.verdict == "validated", report.in_order()[0]


@pytest.mark.parametrize("kind", [Classifier, Detector])
def test_networks_in_bfloat16(tmp_path: Path, kind: type[nn.Module]) -> None:
    """What has no bfloat16 in ONNX computes in float32; recurrences and products do not."""
    network, states = made(kind), kind is Detector
    bundle = xe.export_module(network, series(), tmp_path / "out", dtype="bf16", states=states)
    assert "onnxruntime" not in bundle.manifest.runs_on
    model = onnx.load(str(bundle.model_path))
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    wide = {n.name for n in model.graph.node if types.get(n.output[0]) == onnx.TensorProto.FLOAT}
    assert ("/front/Conv" in wide) is (kind is Classifier)
    assert not any(name.endswith(("/MatMul", "_joined", "/XlstmMLSTM")) for name in wide)
    report = xe.validate_module(bundle, network, series(), threads=1)
    assert report.verdict == "validated", report.in_order()[0]
    assert any(note.startswith("bfloat16 emulated") for note in report.notes)


REFUSED: dict[str, tuple[type[nn.Module], dict[str, Any], type[Exception], str]] = {
    "looks ahead": (Flipped, {"states": True}, xe.UnsupportedModelError, "a step sees later ones"),
    "pools": (Classifier, {"states": True}, xe.UnsupportedModelError, "pooling over time"),
    "loop": (HandWritten, {}, xe.UnsupportedModelError, "computes step by step in Python: "),
    "beside a loop": (BesideALoop, {}, xe.UnsupportedModelError, "^rnn: computes step by step"),
    "branch": (Branching, {}, xe.UnsupportedModelError, "torch.export cannot follow it"),
    "one step": (Detector, {"example_inputs": series(2, 1)}, xe.InputError, "gets one step"),
    "too many": (Detector, {"example_inputs": [series(), series()]}, xe.InputError, "do not fit"),
    "no tensor": (Detector, {"example_inputs": {"x": [1.0]}}, xe.InputError, "x: is list"),
    "fails": (
        Detector, {"example_inputs": series()[..., :2]}, xe.UnsupportedModelError, "fails on",
    ),
    "unknown size": (
        Detector, {"dynamic_shapes": {"x": {7: "batch"}}}, xe.OptionError, "x has no size 7",
    ),
    "fixed size": (
        Detector, {"dynamic_shapes": {"x": {2: "features"}}}, xe.UnsupportedModelError,
        r"size 2 \(features\) is to be free, and the network fixes it at 5",
    ),
    "fixed rows": (
        Detector, {"dynamic_shapes": {"x": {1: "sequence"}}, "states": True}, xe.OptionError,
        "first size of every input is free and called batch; it is 2 in x",
    ),
    "an input's name": (
        Detector, {"output_names": ["x", "last"]}, xe.InputError, "x is an input of the network",
    ),
    "names": (Detector, {"output_names": ["a"]}, xe.InputError, "1 names for 2 outputs"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_leave_nothing_behind(tmp_path: Path, case: str) -> None:
    kind, options, error, message = REFUSED[case]
    given = dict(options)
    inputs = given.pop("example_inputs", series())
    with pytest.raises(error, match=message):
        xe.export_module(made(kind), inputs, tmp_path / "out", **given)
    assert not list(tmp_path.iterdir())


def test_an_old_torch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0+cpu")
    with pytest.raises(
        xe.BackendUnavailableError, match=r"torch 2\.6\.0\+cpu is too old .* 2\.7\.1 is"
    ):
        xe.export_module(made(Detector), series(), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    packaging = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'module = ["torch>=2.7.1", ' in packaging


def test_nothing_that_is_known(tmp_path: Path) -> None:
    with pytest.raises(xe.UnsupportedModelError, match="no recurrence in it is recognised"):
        xe.export_module(nn.Linear(CHANNELS, 2).eval(), series(), tmp_path / "out")


def test_the_graph_does_not_grow_with_time(detector: tuple[Any, xe.Bundle], tmp_path: Path) -> None:
    network, bundle = detector
    longer = xe.export_module(network, series(2, 63), tmp_path / "out", states=True)
    assert longer.nodes == bundle.nodes


class Knotted(nn.Module):
    """A lambda, and one layer in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.detector, self.squash = Detector(), lambda x: torch.tanh(x) / 2
        self.first = nn.Linear(CHANNELS, CHANNELS)
        self.second = self.first
        self.again = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.again.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.detector(self.again(self.second(self.squash(self.first(x)))))["score"]


def test_a_lambda_and_shared_weights(tmp_path: Path) -> None:
    """They compute as before; the weight that three layers share is stored once."""
    network = made(Knotted)
    bundle = xe.export_module(network, series(), tmp_path / "out")
    report = xe.validate_module(bundle, network, series(), threads=1)
    assert report.verdict == "validated", report.in_order()[0]
    stored = onnx.load(str(bundle.model_path)).graph.initializer
    assert sum(list(w.dims) == [CHANNELS, CHANNELS] for w in stored) <= 2  # as it is, transposed


def test_steps_that_are_not_asked_for_are_fixed(tmp_path: Path) -> None:
    """dynamic_shapes without time: a bundle of that many steps, which says so."""
    network = made(Detector)
    asked = {"x": {0: "batch"}}
    bundle = xe.export_module(network, series(2, 9), tmp_path / "out", dynamic_shapes=asked)
    assert bundle.manifest.inputs[0].shape == ("batch", 9, CHANNELS)
    assert any("number of steps is fixed" in note and "at 9" in note for note in bundle.notes)


def test_sizes_that_are_asked_for(tmp_path: Path) -> None:
    """Those alone are free, by the names given; one row that is not free stays one."""
    network = made(Detector)
    asked = {"x": {1: "time"}}
    bundle = xe.export_module(network, series(1), tmp_path / "out", dynamic_shapes=asked)
    assert [t.shape for t in bundle.manifest.inputs] == [(1, "time", CHANNELS)]
    found, _ = xe.open(bundle, threads=1).run({"x": series(1, 9).numpy()})
    with torch.no_grad():
        wanted = network(series(1, 9))["score"]
    np.testing.assert_allclose(found["score"], wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(xe.InputError, match="x: shape"):
        xe.open(bundle, threads=1).run({"x": series(2, 9).numpy()})


def test_an_operator_in_a_network_of_ones_own(tmp_path: Path) -> None:
    """torch.ops.xlstm in a forward is a recurrence that is known."""
    network = made(_direct())
    bundle = xe.export_module(network, series(2, 6), tmp_path / "out")
    found, _ = xe.open(bundle, threads=1).run({"x": series(3, 9).numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found["output"], network(series(3, 9)), rtol=1e-4, atol=1e-5)


def _direct() -> type[nn.Module]:
    from xlstm_export.modules.cells import all_steps

    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.gates = nn.Linear(CHANNELS, 24), nn.Linear(CHANNELS, 4)
            self.register_buffer("lengths", all_steps())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows, steps, _ = x.shape
            q, k, v = self.qkv(x).view(rows, steps, 3, 2, 4).unbind(2)
            i, f = self.gates(x).view(rows, steps, 2, 2).unbind(2)
            states = x.new_zeros(rows, 2, 4, 4), x.new_zeros(rows, 2, 4), x.new_zeros(rows, 2)
            return torch.ops.xlstm.mlstm(q, k, v, i, f, *states, self.lengths)[0]

    return Direct


def test_token_ids_of_a_network_that_is_no_language_model(tmp_path: Path) -> None:
    """Its logits are of classes: they say nothing about the ids that it takes."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.inner = nn.Embedding(50, CHANNELS), Classifier()

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.inner(self.embedding(input_ids))

    network, ids = made(Tokens), torch.full((2, 9), 42)
    bundle = xe.export_module(network, ids, tmp_path / "out", output_names=["logits"])
    assert not bundle.manifest.is_language_model
    found, _ = xe.open(bundle, threads=1).run({"input_ids": ids.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found["logits"], network(ids), rtol=1e-3, atol=1e-5)
    with pytest.raises(xe.InputError, match="token id -1"):
        xe.open(bundle, threads=1).run({"input_ids": -np.ones((1, 2), int)})
