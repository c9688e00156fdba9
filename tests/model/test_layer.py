"""What a kind of layer says of itself, and how its files and its parts are found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xlstm_export.model.causal_conv import conv_states, conv_weights, conv_words
from xlstm_export.model.layer import Composite, Layer, LayerState, beside, file_at, leaves
from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.mlstm import MLSTM, MLSTMCell
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.model.layers.up_projected_mlstm import UpProjectedMLSTM

NORM = Norm("rms", 1e-6, 8)
CELL = MLSTMCell(2, 3, 5, 15.0, 1e-6, 0)
FFN = FeedForward(8, 12, "swish")
KINDS: tuple[Layer, ...] = (
    NORM, FFN, TokenEmbedding(11, 8), LogitHead(11, 8), MLSTM(8, CELL, 1e-6), SLSTM(2, 4, 4, 1e-5),
    UpProjectedMLSTM(8, CELL, 12, 4, 4, 1e-5), Residual(NORM, FFN, "norm"),
)  # fmt: skip
every_kind = pytest.mark.parametrize("layer", KINDS, ids=lambda layer: type(layer).__name__)


@every_kind
def test_a_kind_has_a_file_of_its_name_at_each_station(layer: Layer) -> None:
    name = type(layer).__module__.rpartition(".")[2]
    for station, function in (("lowering", "emit"), ("reference", "evaluate")):
        module = file_at(station, layer)
        assert module.__name__ == f"xlstm_export.{station}.layers.{name}"
        assert callable(getattr(module, function))


@every_kind
def test_a_layer_is_a_value(layer: Layer) -> None:
    twin = replace(layer)  # type: ignore[type-var]
    assert (twin, hash(twin)) == (layer, hash(layer))
    assert isinstance(layer, Composite) == isinstance(layer, Residual)
    names = [f"{state.kind}.{state.letter}" for state in layer.states()]
    assert len(set(names)) == len(names)


@every_kind
def test_what_carries_states_is_not_pointwise(layer: Layer) -> None:
    assert not (layer.states() and layer.pointwise)


def test_composites_are_taken_apart_at_any_depth() -> None:
    inner = Residual(NORM, FFN, "inner_norm")
    outer = Residual(NORM, inner, "outer_norm")
    assert list(leaves("blocks.3.ffn", outer)) == [
        ("blocks.3.outer_norm", NORM), ("blocks.3.inner_norm", NORM), ("blocks.3.ffn", FFN),
    ]  # fmt: skip
    assert list(leaves("head", FFN)) == [("head", FFN)]
    assert not outer.weights()
    assert not outer.states()


@pytest.mark.parametrize(
    ("path", "expected"), [("a.b", "a.c"), ("a.b.d", "a.b.c"), ("a", "c")]
)  # fmt: skip
def test_beside(path: str, expected: str) -> None:
    assert beside(path, "c") == expected


def test_a_convolution_of_width_zero_is_none() -> None:
    assert conv_weights(6, 0) == {}
    assert conv_states(6, 0) == ()
    assert conv_words(0) == ""


def test_a_convolution_carries_all_but_its_last_step() -> None:
    assert {name: w.shape for name, w in conv_weights(6, 4).items()} == {
        "conv.weight": (6, 4), "conv.bias": (6,)
    }  # fmt: skip
    assert conv_weights(6, 4)["conv.bias"].stays_float32  # it meets float32 states
    assert conv_states(6, 4) == (LayerState("conv", "x", (3, 6)),)
    assert "4" in conv_words(4)


def test_what_feeds_gates_and_statistics_stays_float32() -> None:
    kept = {
        type(layer).__name__: {n for n, w in layer.weights().items() if w.stays_float32}
        for layer in KINDS
    }
    gates = {f"{g}_gate.{leaf}" for g in ("input", "forget") for leaf in ("weight", "bias")}
    assert kept == {
        "Norm": {"weight", "bias"},
        "FeedForward": set(), "TokenEmbedding": set(), "LogitHead": set(), "Residual": set(),
        "MLSTM": {*gates, "head_norm.weight", "head_norm.bias"},
        "SLSTM": {"conv.bias", "R.bias", "head_norm.weight"},
        "UpProjectedMLSTM": {*gates, "conv.bias", "head_norm.weight", "head_norm.bias"},
    }  # fmt: skip


def test_a_tied_head_has_no_matrix_of_its_own() -> None:
    assert set(LogitHead(11, 8).weights()) == {"weight", "bias"}
    assert set(LogitHead(11, 8, tied_to="embedding").weights()) == {"bias"}
