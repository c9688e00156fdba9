"""A forecaster's two graphs agree in every opset, ONNX Runtime and level of optimisation.

Without rounding to bfloat16, so that what differs is the runtimes' arithmetic alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from tests.runtime.test_ort_versions import OTHERS, ROWS, run_script
from xlstm_export.lowering.options import OPSETS
from xlstm_export.model.numerics import with_numerics
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.validation.checks.rollout import BASELINE_ROWS
from xlstm_export.validation.inputs import draw_rollouts
from xlstm_export.validation.tolerance import errors, judge_errors, magnitude

CASE = BY_ID["tirex-small"]
SCRIPT = Path(__file__).with_name("run_forecaster.py")


@pytest.mark.parametrize("runtime", ["", *OTHERS], ids=lambda r: Path(r).name or "installed")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_both_graphs_agree(library: Library, tmp_path: Path, runtime: str, dtype: str) -> None:
    checkpoint = library.checkpoint(CASE)
    spec = with_numerics(checkpoint.spec, "fp32")
    rollout = draw_rollouts(spec, ROWS + BASELINE_ROWS, seed=1)[0]
    begin, more = (call["context"] for call in rollout[:2])
    quantiles = []
    for compute in ("float64", dtype):
        model = ReferenceModel(spec, checkpoint.weights, dtype, compute)
        first, states = model.run({"context": begin})
        rest, _ = model.run({"context": more}, states)
        quantiles.append(np.concatenate([first["quantiles"], rest["quantiles"]], axis=1))
    exact, baseline = quantiles
    allowed, exact = [errors(baseline, exact)], exact[:ROWS]
    np.savez(tmp_path / "feeds.npz", begin=begin[:ROWS], more=more[:ROWS])
    models = [
        library.bundle(CASE, dtype=dtype, opset=opset, numerics="fp32") / "model.onnx"
        for opset in OPSETS
    ]
    found = run_script(SCRIPT, tmp_path, models, tmp_path / "feeds.npz", runtime)
    for name, got in found.items():
        judgement = judge_errors(errors(got, exact), allowed, magnitude(exact), dtype)
        assert judgement.ok, (name, judgement)
