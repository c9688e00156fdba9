"""State names and shapes."""

from __future__ import annotations

import pytest

from xlstm_export.model.layers.mlstm import MLSTM, MLSTMCell
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.layers.up_projected_mlstm import UpProjectedMLSTM
from xlstm_export.model.spec import ModelSpec, embeddings, hidden_states
from xlstm_export.model.state import StateNaming, state_specs

NORM = Norm("layer", 1e-5, 16)
CELL = MLSTMCell(2, 8, 12, 0.0, 1e-6, 1)
SPEC = ModelSpec(
    "test",
    (embeddings(16),),
    (
        ("layers.0.mlstm", Residual(NORM, UpProjectedMLSTM(16, CELL, 24, 4, 4, 1e-5), "norm")),
        ("layers.1.slstm", Residual(NORM, SLSTM(4, 4, 3, 1e-5), "norm")),
        ("layers.2.slstm", Residual(NORM, SLSTM(4, 4, 0, 1e-5), "norm")),
        ("layers.3.mlstm", Residual(NORM, MLSTM(16, CELL, 1e-6), "norm")),
        ("out_norm", NORM),
    ),
    (hidden_states(16),),
)


def test_states_in_graph_order_with_shapes() -> None:
    found = {s.key: s.shape for s in state_specs(SPEC)}
    cell = {"C": ("batch", 2, 8, 12), "n": ("batch", 2, 8), "m": ("batch", 2)}
    assert found == {
        "0.conv.x": ("batch", 3, 24),
        **{f"0.mlstm.{letter}": shape for letter, shape in cell.items()},
        "1.conv.x": ("batch", 2, 16),
        **{f"1.slstm.{letter}": ("batch", 4, 4) for letter in "ycnm"},
        **{f"2.slstm.{letter}": ("batch", 4, 4) for letter in "ycnm"},
        **{f"3.mlstm.{letter}": shape for letter, shape in cell.items()},
    }
    assert {s.dtype for s in state_specs(SPEC)} == {"float32"}


@pytest.mark.parametrize(
    ("naming", "expected"),
    [
        ("native", ("past.0.mlstm.C", "present.0.mlstm.C")),
        ("genai", ("past_key_values.0.recurrent_state", "present.0.recurrent_state")),
        ("edgellm", ("recurrent_state_0", "present_recurrent_state_0")),
    ],
)
def test_names_of_the_matrix_memory(naming: StateNaming, expected: tuple[str, str]) -> None:
    (memory,) = [s for s in state_specs(SPEC) if s.key == "0.mlstm.C"]
    assert memory.names(naming) == expected


@pytest.mark.parametrize("naming", ["native", "genai", "edgellm"])
def test_names_are_unique(naming: StateNaming) -> None:
    names = [name for s in state_specs(SPEC) for name in s.names(naming)]
    assert len(set(names)) == len(names)
