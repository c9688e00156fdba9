"""Seven networks in every ONNX Runtime that is here, for other sizes than the examples'."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import xlstm_export as xe
from tests.modules.more_networks import NETWORKS
from tests.modules.networks import made
from tests.runtime.test_ort_versions import OTHERS, run_script
from xlstm_export.reference.network import Network
from xlstm_export.validation.checks.rollout import BASELINE_ROWS
from xlstm_export.validation.tolerance import errors, judge_errors, magnitude

SCRIPT = Path(__file__).with_name("run_networks.py")
ROWS, STEPS = 3, 34


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, xe.Bundle]]:
    folder, found = tmp_path_factory.mktemp("networks"), {}
    for name, (kind, inputs, states) in NETWORKS.items():
        network = made(kind)
        found[name] = network, xe.export_module(network, inputs(), folder / name, states=states)
    return found


def _arrays(given: Any, network: Network) -> dict[str, Any]:
    (first, *_) = network.signature.inputs
    named = {first: given} if isinstance(given, Tensor) else given
    return {name: x.numpy() for name, x in named.items()}


@pytest.mark.parametrize("runtime", ["", *OTHERS], ids=lambda r: Path(r).name or "installed")
def test_networks_match_pytorch(
    bundles: dict[str, tuple[Any, xe.Bundle]], tmp_path: Path, runtime: str
) -> None:
    """Function bodies alone, as stock ONNX Runtime runs them; with states in parts too."""
    feeds, judged = {}, []
    for index, (name, (module, bundle)) in enumerate(bundles.items()):
        inputs = NETWORKS[name][1]
        network = Network(module, inputs(), bundle.manifest)
        given = _arrays(inputs(ROWS + BASELINE_ROWS, STEPS, seed=5), network)
        exact, _ = network.oracle().run(given)
        forms = [network.reference("float32", f).run(given)[0] for f in ("recurrent", "chunkwise")]
        feeds |= {f"{index}/{key}": x[:ROWS] for key, x in given.items()}
        judged.append((name, index, exact, forms))
    np.savez(tmp_path / "feeds.npz", **feeds)  # type: ignore[arg-type]
    models = [bundle.model_path for _, bundle in bundles.values()]
    found = run_script(SCRIPT, tmp_path, models, tmp_path / "feeds.npz", runtime)
    for name, index, exact, forms in judged:
        for key, right in exact.items():
            allowed = [errors(form[key], right) for form in forms]
            for way in ("", "parts/") if NETWORKS[name][2] else ("",):
                got = errors(found[f"{index}/{way}{key}"], right[:ROWS])
                judgement = judge_errors(got, allowed, magnitude(right), "float32")
                assert judgement.ok, (name, way, key, judgement)


@pytest.mark.parametrize("name", ["forecaster", "encoder", "tagger", "texts"])
@pytest.mark.parametrize("native", [True, False])
def test_networks_are_validated(
    bundles: dict[str, tuple[Any, xe.Bundle]], name: str, native: bool
) -> None:
    """The others are in test_module_export; each with the native kernels and without."""
    network, bundle = bundles[name]
    report = xe.validate_module(bundle, network, NETWORKS[name][1](), native=native, threads=1)
    assert report.verdict == "validated", report.in_order()[0]


def test_the_runtimes_that_are_asked_for_are_here() -> None:
    if not os.environ.get("XLSTM_ORT_DIRS"):
        pytest.skip("XLSTM_ORT_DIRS names no other ONNX Runtime")
    assert {Path(d).name for d in OTHERS} & {"1.23.2"}
