"""Parts that are cut out of a graph are bundles, and compute in a row what the whole computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.lowering.cut import Cutter
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.lowering.write import check_model
from xlstm_export.model.layer import result_name
from xlstm_export.runtime.ort import OrtSession


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hf-tied", LoweringOptions(logits="last")),
        ("stack-mixed", LoweringOptions(dtype="float16", ragged=True)),
        ("stack-bare", LoweringOptions(state_names="genai")),
    ],
    ids=str,
)
def test_every_layer_in_a_row_is_the_model(
    library: Library, tmp_path: Path, name: str, options: LoweringOptions
) -> None:
    bundle = library.bundle(BY_ID[name], options)
    manifest, spec = read_manifest(bundle), library.checkpoint(BY_ID[name]).spec
    random = np.random.default_rng(0)
    x = random.integers(0, 199, (2, 9))
    if spec.vocab_size is None:
        x = random.standard_normal((2, 9, spec.width)).astype(np.float32)
    expected, states = OrtSession(bundle, threads=1).run({spec.inputs[0].name: x})
    cutter, found, before = Cutter(bundle, manifest), {}, ""
    for index, (path, layer) in enumerate(spec.layers):
        folder = tmp_path / str(index)
        folder.mkdir()
        own = cutter.cut(before, spec.part(index, index + 1), folder)
        check_model(folder / "model.onnx")
        assert own.data_bytes < manifest.data_bytes
        outputs, after = OrtSession(folder, threads=1).run({own.inputs[0].name: x})
        x, before = outputs[own.outputs[0].name], result_name(path, layer)
        found.update(after)
    (exact,) = expected.values()
    near = 2e-2 if options.dtype == "float16" else 1e-5
    np.testing.assert_allclose(x, exact, rtol=near, atol=near * np.abs(exact).max())
    assert set(found) == set(states)
    for key, value in states.items():
        np.testing.assert_allclose(found[key], value, rtol=near, atol=near * np.abs(value).max())
