"""A forecaster of several series: what a session checks of its inputs, in every ONNX Runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlstm_export as xe
from tests.families.tirex2_checkpoints import write_tirex2
from xlstm_export import pipeline
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import InputError
from xlstm_export.families import tirex2
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.validation.inputs import draw_rollouts
from xlstm_export.validation.tolerance import judge

OTHERS = [d for d in os.environ.get("XLSTM_ORT_DIRS", "").split(os.pathsep) if d]
OPSETS = (18, 21)

_SCRIPT = """
import sys, numpy as np, onnxruntime as ort
feeds = np.load(sys.argv[1])
options = ort.SessionOptions()
options.log_severity_level = 3
session = ort.InferenceSession(sys.argv[2], options, providers=["CPUExecutionProvider"])
found = {}
for call in sorted({name.split("/")[0] for name in feeds.files}):
    own = {n.split("/")[1]: feeds[n] for n in feeds.files if n.startswith(call + "/")}
    found[call] = session.run(None, own)[0]
np.savez(sys.argv[3], **found)
print(ort.__version__)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tirex2(tmp_path_factory.mktemp("tirex2") / "source")


@pytest.fixture(scope="module")
def bundle(source: Path) -> Path:
    return Path(pipeline.export(source, source.parent / "bundle").path)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("runtime", ["", *OTHERS], ids=lambda r: Path(r).name or "installed")
def test_stock_onnx_runtime(tmp_path: Path, source: Path, runtime: str, opset: int) -> None:
    """Function bodies alone; calls without covariates have inputs of no variates."""
    out = tmp_path / "bundle"
    pipeline.export(source, out, opset=opset)
    checkpoint = tirex2.read(Source(source))
    calls = [call for (call,) in draw_rollouts(checkpoint.spec, 6, seed=0)]
    named = {f"{i}/{name}": x for i, call in enumerate(calls) for name, x in call.items()}
    np.savez(tmp_path / "feeds.npz", **named)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, "feeds.npz", "bundle/model.onnx", "out.npz"],
        env={**os.environ, "PYTHONPATH": runtime}, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not runtime or done.stdout.strip() in runtime
    forms: list[tuple[str, Any]] = [
        ("float64", "recurrent"), ("float32", "recurrent"), ("float32", "chunkwise"),
    ]  # fmt: skip
    models = [
        ReferenceModel(checkpoint.spec, checkpoint.weights, "float32", compute, form)
        for compute, form in forms
    ]
    found = np.load(tmp_path / "out.npz")
    for index, call in enumerate(calls):
        exact, recurrent, chunkwise = (model.run(call)[0]["quantiles"] for model in models)
        judgement = judge(found[str(index)], exact, recurrent, chunkwise, "float32")
        assert judgement.ok, (index, judgement)


def _feeds(**others: Any) -> dict[str, Any]:
    return {
        "context": np.zeros((2, 1, 30), np.float32),
        "past_covariates": np.zeros((2, 2, 30), np.float32),
        "future_covariates": np.zeros((2, 1, 40), np.float32),
        "groups": np.zeros((2, 4), np.int64),
        **others,
    }


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"context": np.zeros((2, 0, 30), np.float32)}, "context: shape [2, 0, 30]"),
        ({"groups": np.zeros((2, 3), np.int64)}, "groups: targets+past+known is 3, with targets 1"),
        (
            {"future_covariates": np.zeros((2, 1, 30), np.float32)},
            "future_covariates: length+horizon is 30, with length 30, horizon at least 1",
        ),
        (
            {"past_covariates": np.zeros((2, 2, 29), np.float32)},
            "past_covariates: length is 29, where context has 30",
        ),
        ({"groups": np.zeros((1, 4), np.int64)}, "groups: batch is 1, where context has 2"),
        ({"groups": np.full((2, 4), 0.5)}, "groups: holds float64, expected whole numbers"),
    ],
)
def test_inputs_that_do_not_fit(bundle: Path, others: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        OrtSession(bundle).run(_feeds(**others))
    assert str(caught.value).startswith(words)


def test_no_covariates_are_none(bundle: Path) -> None:
    feeds = _feeds(
        past_covariates=np.zeros((2, 0, 30), np.float32),
        future_covariates=np.zeros((2, 0, 33), np.float32),
        groups=np.zeros((2, 1), np.int64),
    )
    outputs, states = OrtSession(bundle).run(feeds)
    assert outputs["quantiles"].shape == (2, 1, 3, 9)
    assert not states


def test_forecasts_of_a_bundle(bundle: Path) -> None:
    """The public function feeds it; together, and each by itself."""
    random = np.random.default_rng(0)
    series = random.standard_normal((2, 30)).astype(np.float32)
    alone = xe.forecast(bundle, series, 5)
    assert alone.quantiles.shape == (2, 5, 9)
    assert alone.levels == pytest.approx([q / 10 for q in range(1, 10)])
    together = xe.forecast(
        bundle, series, 5, together=True, future_covariates=random.standard_normal((1, 35))
    )
    assert together.quantiles.shape == (2, 5, 9)
    assert np.abs(together.quantiles - alone.quantiles).max() > 1e-3
