"""A model as a list of layers, and weights that are not its own."""

from __future__ import annotations

import numpy as np
import pytest

from xlstm_export.errors import CheckpointError
from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.model.spec import (
    ModelSpec,
    check_weights,
    embeddings,
    hidden_states,
    logits,
    token_ids,
)
from xlstm_export.model.weights import Weight

NORM, FFN = Norm("rms", 1e-6, 4), FeedForward(4, 6, "gelu")
SPEC = ModelSpec(
    "test",
    (token_ids(),),
    (
        ("embedding", TokenEmbedding(7, 4)),
        ("blocks.0.ffn", Residual(NORM, FFN, "norm")),
        ("head", LogitHead(7, 4)),
    ),
    (logits(7),),
)
SHAPES = {
    "embedding.weight": (7, 4), "blocks.0.norm.weight": (4,), "blocks.0.ffn.gate.weight": (6, 4),
    "blocks.0.ffn.up.weight": (6, 4), "blocks.0.ffn.down.weight": (4, 6), "head.weight": (7, 4),
}  # fmt: skip
OPTIONAL = {
    "blocks.0.norm.bias": (4,), "blocks.0.ffn.gate.bias": (6,), "blocks.0.ffn.up.bias": (6,),
    "blocks.0.ffn.down.bias": (4,), "head.bias": (7,),
}  # fmt: skip


def weights(**changes: tuple[int, ...] | None) -> dict[str, Weight]:
    """All that the model must have; a shape of None leaves one out (dots written __)."""
    shapes = SHAPES | {name.replace("__", "."): shape for name, shape in changes.items()}
    return {
        name: Weight(shape, "float32", (f"stored.{name}",), lambda: np.zeros(1))
        for name, shape in shapes.items()
        if shape is not None
    }


def test_weights_by_their_full_names() -> None:
    found = {name: w.shape for name, w in SPEC.weights().items()}
    assert found == SHAPES | OPTIONAL
    assert {name for name, w in SPEC.weights().items() if w.optional} == set(OPTIONAL)


def test_layers_of_one_kind() -> None:
    assert SPEC.layers_of(Norm) == [NORM]
    assert SPEC.layers_of(FeedForward) == [FFN]
    assert SPEC.vocab_size == 7
    bare = ModelSpec("test", (embeddings(4),), (("norm", NORM),), (hidden_states(4),))
    assert bare.vocab_size is None


def test_own_weights_with_and_without_the_optional_ones() -> None:
    check_weights(SPEC, weights())
    check_weights(SPEC, weights(**{k.replace(".", "__"): s for k, s in OPTIONAL.items()}))


@pytest.mark.parametrize("name", SHAPES)
def test_a_missing_weight_is_named(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"test: weights missing \['{name}'\], unknown \[\]"):
        check_weights(SPEC, weights(**{name.replace(".", "__"): None}))


def test_an_unknown_weight_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"missing \[\], unknown \['head\.scale'\]"):
        check_weights(SPEC, weights(head__scale=(7,)))


@pytest.mark.parametrize("shape", [(4, 7), (7,), (7, 4, 1), (8, 4)])
def test_a_weight_of_another_shape_is_named_by_its_tensor(shape: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError) as caught:
        check_weights(SPEC, weights(head__weight=shape))
    assert str(caught.value) == (
        f"tensor stored.head.weight: shape {list(shape)} for head.weight, expected [7, 4]"
    )


def test_an_optional_weight_of_another_shape_is_refused_too() -> None:
    with pytest.raises(CheckpointError, match=r"shape \[6\] for head\.bias, expected \[7\]"):
        check_weights(SPEC, weights(head__bias=(6,)))
