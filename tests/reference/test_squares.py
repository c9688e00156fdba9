"""How large the inputs of matrices are: against what a layer gets, computed by hand."""

from __future__ import annotations

import numpy as np

from tests.model_cases import BY_ID, Library
from xlstm_export.model.low_bit import candidates
from xlstm_export.model.spec import ModelSpec
from xlstm_export.reference.squares import mean_squares
from xlstm_export.validation.inputs import draw_rollouts


def test_every_matrix_is_measured(library: Library) -> None:
    """Of each family, all but the tables that are looked up only."""
    for name in ("stack-tied", "stack-odd-sizes", "large-fused", "hf-plain", "tirex-small"):
        checkpoint = library.checkpoint(BY_ID[name])
        spec, weights = checkpoint.spec, checkpoint.weights
        found = mean_squares(spec, weights, draw_rollouts(spec, 1, seed=0))
        missing = set(candidates(spec, weights)) - set(found)
        assert missing <= {"embedding.weight"}, name
        assert all(x.shape == weights[n].shape[1:] for n, x in found.items() if n in weights)
        assert all(np.isfinite(x).all() and (x >= 0).all() for x in found.values())


def test_the_first_projection_sees_normed_rows(library: Library) -> None:
    """The mean over inputs of what an RMS norm of plain weights yields is that of the weights."""
    checkpoint = library.checkpoint(BY_ID["hf-plain"])
    spec: ModelSpec = checkpoint.spec
    found = mean_squares(spec, checkpoint.weights, draw_rollouts(spec, 2, seed=0))
    norm = "layers.0.mixer_norm.weight"
    gain = checkpoint.weights[norm].load().astype(np.float64)
    mine = found["layers.0.mlstm.q.weight"]
    np.testing.assert_array_equal(mine, found["layers.0.mlstm.v.weight"])
    np.testing.assert_allclose((mine / gain**2).mean(), 1.0, rtol=0.02)
