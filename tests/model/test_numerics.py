"""``with_numerics``: what rounds, however deep it stands, rounds no more; the rest stays."""

from __future__ import annotations

from tests.model_cases import BY_ID, Library
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.numerics import rounds, with_numerics


def test_fp32_rounds_nothing(library: Library) -> None:
    spec = library.checkpoint(BY_ID["tirex-small"]).spec
    plain = with_numerics(spec, "fp32")
    assert [layer.state_rounding for layer in spec.layers_of(SLSTM)] == [1, 1]
    assert [layer.state_rounding for layer in plain.layers_of(SLSTM)] == [0, 0]
    assert rounds(spec)
    assert not rounds(plain)
    assert plain.weights() == spec.weights()
    assert [path for path, _ in plain.layers] == [path for path, _ in spec.layers]


def test_faithful_is_the_model_as_it_is(library: Library) -> None:
    spec = library.checkpoint(BY_ID["tirex-small"]).spec
    assert with_numerics(spec, "faithful") is spec


def test_other_models_have_nothing_to_round(library: Library) -> None:
    spec = library.checkpoint(BY_ID["stack-mixed"]).spec
    assert not rounds(spec)
    assert with_numerics(spec, "fp32") == spec
