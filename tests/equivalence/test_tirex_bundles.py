"""TiRex: bundles are upstream's model, a state goes on as a longer call would, faults are found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests.families.tirex_checkpoints import SMALL, make_tirex
from tests.model_cases import BY_ID, TIREX, Library, ModelCase
from xlstm_export import pipeline
from xlstm_export.bundle.manifest import read_manifest, write_manifest
from xlstm_export.errors import InputError, OptionError
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.validation.result import Report

CASE = BY_ID["tirex-small"]
PATCH, CONTEXT, LEVELS = SMALL["patch"], SMALL["context"], SMALL["levels"]
Edit = Callable[[onnx.ModelProto], None]


def verdict(library: Library, bundle: Path, case: ModelCase = CASE) -> Report:
    return pipeline.validate(bundle, library.source(case).path, threads=1)


def failed(report: Report) -> set[str]:
    """Names of what is outside the rule."""
    return {result.name for result in report.results if not result.judgement.ok}


@pytest.mark.parametrize("case", TIREX, ids=str)
@pytest.mark.parametrize("numerics", ["faithful", "fp32"])
def test_validated(library: Library, case: ModelCase, numerics: str) -> None:
    report = verdict(library, library.bundle(case, numerics=numerics), case)
    assert report.verdict == "validated", failed(report)
    assert report.reader_distance is not None
    assert report.reader_distance < 1e-9
    (note,) = [note for note in report.notes if "as it rounds" in note]
    assert f"{numerics} numerics, this bundle" in note


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("numerics", ["faithful", "fp32"])
def test_validated_in_low_precision(library: Library, dtype: str, numerics: str) -> None:
    report = verdict(library, library.bundle(CASE, dtype=dtype, numerics=numerics))
    assert report.verdict == "validated", failed(report)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("length", [1, PATCH + 3, CONTEXT, CONTEXT + PATCH + 1])
def test_a_state_goes_on_as_one_longer_call(library: Library, native: bool, length: int) -> None:
    """A bit or two of bfloat16 may differ: sums of another length are added in another order."""
    session = OrtSession(library.bundle(CASE, numerics="fp32"), native=native)
    random = np.random.default_rng(length)
    context = random.standard_normal((2, length)).cumsum(1).astype(np.float32)
    _, begun = session.run({"context": context})
    more = np.concatenate([random.standard_normal((2, 2 * PATCH)), np.full((2, PATCH), np.nan)], 1)
    whole, after = session.run({"context": more}, begun)
    assert whole["quantiles"].shape == (2, 3 * PATCH, LEVELS)
    states = begun
    for start in range(0, 3 * PATCH, PATCH):
        part, states = session.run({"context": more[:, start : start + PATCH]}, states)
        np.testing.assert_allclose(
            part["quantiles"], whole["quantiles"][:, start : start + PATCH], rtol=1e-4, atol=1e-4
        )
    for key in after:
        np.testing.assert_allclose(states[key], after[key], rtol=1e-4, atol=1e-4, err_msg=key)
    session.close()


def test_parts_of_a_patch_need_a_new_beginning(library: Library) -> None:
    session = OrtSession(library.bundle(CASE))
    _, states = session.run({"context": np.zeros((1, 3), np.float32)})
    with pytest.raises(InputError, match=f"9 steps, .* a multiple of {PATCH}; begin again"):
        session.run({"context": np.zeros((1, PATCH + 1), np.float32)}, states)


@pytest.mark.parametrize("level", [0.0, 2.0, -3.5, 1e20])
def test_a_constant_is_upstreams(tmp_path: Path, level: float) -> None:
    """Levels whose float32 mean upstream gets right: elsewhere it takes the rounding for spread."""
    made = make_tirex(tmp_path / "source")
    pipeline.export(made.source.path, tmp_path / "bundle")
    session = OrtSession(tmp_path / "bundle")
    context = np.full((1, CONTEXT), level, np.float32)
    upstream, _ = made.model._forecast_quantiles(torch.from_numpy(context))
    mine = session.run({"context": context})[0]["quantiles"]
    assert np.isfinite(mine).all()
    assert np.abs(mine - upstream.numpy()).max() < 0.05 * max(abs(level), 1e-5)


@pytest.mark.parametrize("level", [0.1, 1 / 3, 7.7, 123.456])
def test_a_constant_has_no_spread(library: Library, level: float) -> None:
    """Whatever the number, also where a float32 mean is an ulp beside it."""
    session = OrtSession(library.bundle(CASE))
    for length in (5, 33, CONTEXT):
        context = np.full((1, length), level, np.float32)
        _, states = session.run({"context": context})
        assert states["0.scaler.loc"] == context[0, 0]
        assert states["0.scaler.scale"] == np.abs(context[0, 0]) + np.float32(1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e17, 1e25, 1e35])
def test_huge_and_tiny_series_are_upstreams(tmp_path: Path, scale: float) -> None:
    """Where float32 overflows or underflows, so do both."""
    made = make_tirex(tmp_path / "source")
    pipeline.export(made.source.path, tmp_path / "bundle")
    session = OrtSession(tmp_path / "bundle")
    walk = np.random.default_rng(0).standard_normal((2, CONTEXT)).cumsum(1)
    context = (walk / np.abs(walk).max() * scale).astype(np.float32)
    context[0, :40] = np.nan
    upstream = made.model._forecast_quantiles(torch.from_numpy(context))[0].numpy()
    mine = session.run({"context": context})[0]["quantiles"]
    finite = np.isfinite(upstream)
    assert np.array_equal(finite, np.isfinite(mine))
    spread = np.ptp(upstream[finite].astype(np.float64)) if finite.any() else 1.0
    assert np.abs(mine[finite] - upstream[finite].astype(np.float64)).max() <= 0.05 * spread


def test_nothing_known_is_upstreams(library: Library) -> None:
    session = OrtSession(library.bundle(CASE))
    _, states = session.run({"context": np.full((2, 7), np.nan, np.float32)})
    assert (states["0.scaler.loc"] == 0).all()
    assert (states["0.scaler.scale"] == 1).all()


def test_numerics_is_an_option_where_upstream_rounds(library: Library, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nothing of hf models is rounded"):
        pipeline.export(library.source(BY_ID["hf-plain"]).path, tmp_path / "b", numerics="fp32")
    with pytest.raises(OptionError, match="exact is not one of faithful, fp32"):
        pipeline.export(library.source(CASE).path, tmp_path / "b", numerics="exact")
    for option in ({"ragged": True}, {"logits": "last"}):
        with pytest.raises(OptionError, match="tirex models"):
            pipeline.export(library.source(CASE).path, tmp_path / "b", **option)  # type: ignore[arg-type]


def planted(library: Library, folder: Path, edit: Edit, *files: str) -> Path:
    """A copy of the bundle whose graphs ``files`` went through ``edit``."""
    bundle = folder / "bundle"
    shutil.copytree(library.bundle(CASE), bundle)
    for file in files:
        model = onnx.load(str(bundle / file), load_external_data=False)
        edit(model)
        onnx.save(model, str(bundle / file))
    return bundle


def _no_rounding(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "state_rounding":
                attribute.i = 0


def _no_floor(model: onnx.ModelProto) -> None:
    (floor,) = [
        i for i in model.graph.initializer if i.name.endswith(f"_{np.float32(1e-5).item()}")
    ]
    floor.CopyFrom(numpy_helper.from_array(np.float32(0), floor.name))


def _between(model: onnx.ModelProto, node: onnx.NodeProto, op: str, *inputs: str) -> None:
    """``op`` of the node's output and ``inputs`` takes its place."""
    name = node.output[0]
    node.output[0] = f"{name}/before"
    place = list(model.graph.node).index(node) + 1
    own = onnx.helper.make_node(op, [node.output[0], *inputs], [name])
    if op == "Gather":
        own.attribute.append(onnx.helper.make_attribute("axis", -1))
    model.graph.node.insert(place, own)


def _node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (found,) = [node for node in model.graph.node if node.name == name]
    return found


def _no_mask(model: onnx.ModelProto) -> None:
    """Missing observations look like observations of the mean."""
    mask = _node(model, "/patches/mask")
    _between(model, mask, "Sub", f"{mask.output[0]}/before")


def _quantiles_reversed(model: onnx.ModelProto) -> None:
    order = numpy_helper.from_array(np.arange(LEVELS)[::-1].copy(), "reversed")
    model.graph.initializer.append(order)
    (last,) = [n for n in model.graph.node if "quantiles" in n.output]
    _between(model, last, "Gather", "reversed")


def _gates_swapped(model: onnx.ModelProto) -> None:
    order = numpy_helper.from_array(np.array([1, 0, 2, 3]), "order")
    model.graph.initializer.append(order)
    for node in [n for n in model.graph.node if n.op_type == "XlstmSLSTM"]:
        swapped = onnx.helper.make_node(
            "Gather", [node.input[0], "order"], [f"{node.input[0]}/swapped"], axis=2
        )
        model.graph.node.insert(list(model.graph.node).index(node), swapped)
        node.input[0] = swapped.output[0]


@pytest.mark.parametrize(
    ("edit", "file"),
    [
        (_no_rounding, "model.onnx"),
        (_no_rounding, "continue.onnx"),
        (_no_floor, "model.onnx"),
        (_no_mask, "model.onnx"),
        (_no_mask, "continue.onnx"),
        (_quantiles_reversed, "model.onnx"),
        (_quantiles_reversed, "continue.onnx"),
        (_gates_swapped, "model.onnx"),
        (_gates_swapped, "continue.onnx"),
    ],
    ids=lambda x: x if isinstance(x, str) else x.__name__.strip("_"),
)
def test_a_fault_is_found(library: Library, tmp_path: Path, edit: Edit, file: str) -> None:
    assert verdict(library, planted(library, tmp_path, edit, file)).verdict == "failed"


def test_a_bundle_that_says_other_numerics_than_it_has_fails(
    library: Library, tmp_path: Path
) -> None:
    shutil.copytree(library.bundle(CASE, numerics="fp32"), tmp_path / "bundle")
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.numerics == "fp32"
    write_manifest(replace(manifest, numerics="faithful"), tmp_path / "bundle")
    assert verdict(library, tmp_path / "bundle").verdict == "failed"


def test_the_bundle_says_what_it_foretells(library: Library) -> None:
    info = read_manifest(library.bundle(CASE, LoweringOptions())).forecast
    assert info is not None
    assert (info.context, info.patch, info.horizon) == (CONTEXT, PATCH, PATCH)
    assert len(info.levels) == LEVELS
