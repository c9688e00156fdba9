"""A model that does not fit: the same verdict and figures as of the whole, and the same faults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from xlstm_export.bundle.manifest import LAYERS
from xlstm_export.checkpoint.tensor_table import LayerTensors
from xlstm_export.errors import BundleError, OptionError
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.model.weights import Weights
from xlstm_export.validation.checks import drift
from xlstm_export.validation.result import Check, Report
from xlstm_export.validation.segments import alone, compare, plan

STACK, LARGE = "stack-mixed", "large-single"


@pytest.fixture(autouse=True)
def _small_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is that of the numbers alone: some kilobytes divide a model."""
    monkeypatch.setattr(plan, "_REST", 0)


@dataclass
class Validated:
    """Reports by case, options and mode, each made once."""

    library: Library

    def __post_init__(self) -> None:
        self.report = cache(self._report)

    def _report(self, name: str, in_parts: bool, **options: object) -> Report:
        bundle = self.library.bundle(BY_ID[name], LoweringOptions(**options))  # type: ignore[arg-type]
        return self.of(bundle, name, in_parts)

    def of(self, bundle: Path, name: str, in_parts: bool = True, **more: object) -> Report:
        """On ``bundle`` of the case ``name``; in parts with as much memory as these need."""
        checkpoint = self.library.checkpoint(BY_ID[name])
        memory = most_of_a_part(checkpoint.spec, checkpoint.weights) if in_parts else None
        source = self.library.source(BY_ID[name]).path
        return xe.validate(bundle, source, threads=1, memory=memory, **more)  # type: ignore[arg-type]


def most_of_a_part(spec: plan.ModelSpec, weights: Weights) -> int:
    """Bytes that the largest part takes."""
    parts = plan.parts_of(spec)
    return max(plan._bytes(p.spec, plan.own_weights(p.spec, weights).values()) for p in parts)


@pytest.fixture(scope="module")
def validated(library: Library) -> Validated:
    return Validated(library)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hf-plain", {"ragged": True}),
        (STACK, {}),
        ("hf-tied", {"dtype": "bfloat16", "logits": "last"}),
        ("stack-bare", {"dtype": "float16"}),
    ],
    ids=str,
)
def test_verdict_and_figures_are_those_of_the_whole(
    validated: Validated, name: str, options: dict[str, object]
) -> None:
    """But for the bundle's own errors where ONNX Runtime joins what parts keep apart."""
    whole, parts = (validated.report(name, in_parts, **options) for in_parts in (False, True))
    assert (whole.mode, parts.mode) == ("whole", "layer by layer")
    assert whole.verdict == parts.verdict == "validated"
    assert parts.reference == whole.reference
    assert parts.reader_distance is not None
    assert parts.reader_distance < 1e-9
    found = {result.name: result for result in parts.results}
    same = [r for r in whole.results if not r.name.startswith("ragged")]
    assert set(found) >= {r.name for r in same}
    for result in same:
        own, its = found[result.name].judgement, result.judgement
        assert own.max_allowed == pytest.approx(its.max_allowed, rel=1e-6)
        assert own.rms_allowed == pytest.approx(its.rms_allowed, rel=1e-6)
        apart = 1e-6 if name.startswith("hf") else 1.5
        assert own.rms_error == pytest.approx(its.rms_error, rel=apart)
    ragged = [r.name for r in parts.results if r.name.startswith("ragged")]
    assert bool(ragged) is bool(options.get("ragged"))


def test_the_report_names_the_mode_and_what_was_not_done(validated: Validated) -> None:
    report = validated.report("hf-plain", True, ragged=True)
    outcomes = {check.name: check.outcome for check in report.checks}
    assert outcomes["each layer alone"] == "passed"
    assert outcomes["one call or many"] == "passed"
    assert outcomes["greedy tokens"] == "skipped"
    assert "layer by layer" in report.explanation
    assert any("in 4 parts" in note for note in report.notes)
    for text in (report.to_markdown(), report.to_html(), report.to_json()):
        assert "layer by layer" in text
    assert "--memory" in report.command


def _swapped_gates(model: onnx.ModelProto) -> None:
    """Input and forget gate of the second block change places."""
    node = [n for n in model.graph.node if n.op_type == "XlstmMLSTM"][1]
    node.input[3], node.input[4] = node.input[4], node.input[3]


def _state_not_carried(model: onnx.ModelProto) -> None:
    node = [n for n in model.graph.node if n.op_type == "XlstmMLSTM"][1]
    past, present = node.input[6], node.output[2]
    node.output[2] = f"{present}/lost"
    model.graph.node.append(onnx.helper.make_node("Identity", [past], [present]))


def _another_cap(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "gate_soft_cap":
                attribute.f = 14.0


@pytest.mark.parametrize(
    ("edit", "layer", "cause"),
    [
        (_swapped_gates, "layers.1.mlstm", "swapped"),
        (_state_not_carried, "layers.1.mlstm", "state 1.mlstm.n is not carried"),
        (_another_cap, "layers.0.mlstm", "gate_soft_cap of XlstmMLSTM is 14 in"),
    ],
)
def test_a_fault_is_found_where_it_is(
    validated: Validated, tmp_path: Path, edit: Callable[[onnx.ModelProto], None], layer: str,
    cause: str,
) -> None:  # fmt: skip
    bundle = _copied(validated, LARGE, tmp_path)
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    edit(model)
    onnx.save(model, bundle / "model.onnx")
    report = validated.of(bundle, LARGE)
    assert report.verdict == "failed"
    assert report.location is not None
    assert report.location.layer == layer
    assert cause in report.location.cause
    assert report.location.error > report.location.allowed


def test_weights_that_are_stale_are_found_in_two_parts(
    validated: Validated, tmp_path: Path
) -> None:
    bundle = _copied(validated, STACK, tmp_path)
    model = ir.load(bundle / "model.onnx")
    weights = model.graph.initializers
    stale, norm = "/layers.0/mlstm/out.weight", "/layers.1/ffn_norm.weight"
    matrix = weights[stale].const_value.numpy()
    noise = np.random.default_rng(0).standard_normal(matrix.shape).astype(np.float32)
    weights[stale].const_value = ir.tensor(matrix + 0.05 * noise)
    weights[norm].const_value = ir.tensor(weights[norm].const_value.numpy() - np.float32(1))
    ir.save(model, bundle / "model.onnx")
    report = validated.of(bundle, STACK)
    assert report.location is not None
    assert report.location.layer == "layers.0.mlstm"
    assert f"{stale} is stale" in report.location.cause
    assert "layers.1.ffn_norm: the layer's result" in report.location.others


def test_a_checkpoint_that_is_misread_is_found(
    validated: Validated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LayerTensors, "take_norm", LayerTensors.take)
    source = validated.library.source(BY_ID[STACK]).path
    bundle = xe.export(source, tmp_path / "bundle").path
    report = validated.of(bundle, STACK)
    assert report.verdict == "failed"
    assert report.location is not None
    assert report.location.layer == "layers.0.mlstm"
    assert "without their +1" in report.location.cause


def test_a_layer_that_reads_another_is_not_taken_apart(
    validated: Validated, tmp_path: Path
) -> None:
    """The last block gets the embeddings beside the result of the block before."""
    bundle = _copied(validated, LARGE, tmp_path)
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    embedded = next(n for n in model.graph.node if n.op_type == "Gather").output[0]
    names = json.loads(next(p.value for p in model.metadata_props if p.key == LAYERS))
    end = names["layers.1.ffn Residual"]
    (last,) = [n for n in model.graph.node if end in n.output]
    last.input[0] = embedded
    onnx.save(model, bundle / "model.onnx")
    with pytest.raises(BundleError, match=r"cannot be taken apart at layers.1.ffn.*--memory"):
        validated.of(bundle, LARGE)


def test_a_text_is_predicted_as_by_the_whole(validated: Validated, tmp_path: Path) -> None:
    ids = tmp_path / "ids.npy"
    np.save(ids, np.random.default_rng(1).integers(0, 199, (1, 90)))
    bundle = validated.library.bundle(BY_ID[LARGE])
    whole, parts = (validated.of(bundle, LARGE, in_parts, inputs=ids) for in_parts in (False, True))
    words = [_check(report, "text, by position").reason for report in (whole, parts)]
    assert words[0] == words[1]
    assert "89 tokens: perplexity" in words[0]


def test_a_long_rollout_goes_through_the_parts(
    validated: Validated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full: every part is checked against itself, and what decays too little is seen late."""
    monkeypatch.setattr(drift, "STEPS", 512)
    bundle = validated.library.bundle(BY_ID["hf-plain"], LoweringOptions())
    report = validated.of(bundle, "hf-plain", budget="full")
    assert report.verdict == "validated"
    assert _check(report, "drift over carried steps").outcome == "passed"
    assert "2 of 4 parts" in _check(report, "one call or many").reason
    names = [result.name for result in report.results]
    assert {"drift logits", "drift 1.mlstm.C"} <= set(names)


def test_recorded_numbers_are_reproduced_or_not(validated: Validated, tmp_path: Path) -> None:
    bundle = validated.library.bundle(BY_ID[LARGE])
    ids = np.random.default_rng(3).integers(0, 199, (3, 20))
    logits = xe.open(bundle).run({"input_ids": ids})[0]["logits"]
    for change, verdict in ((0.0, "validated"), (0.1, "failed")):
        path = tmp_path / f"{verdict}.npz"
        np.savez(path, input_ids=ids, logits=logits + change)
        report = validated.of(bundle, LARGE, samples=path)
        assert report.verdict == verdict
        assert report.results[-1].name == "recorded logits"


def _check(report: Report, name: str) -> Check:
    (check,) = [check for check in report.checks if check.name == name]
    return check


def test_what_needs_the_whole_model_is_refused(validated: Validated, tmp_path: Path) -> None:
    bundle = validated.library.bundle(BY_ID[LARGE])
    with pytest.raises(OptionError, match=r"runs the whole model.*--memory"):
        validated.of(bundle, LARGE, save_io=tmp_path / "saved")


@pytest.mark.parametrize(
    ("place", "calls", "verdict"), [("look", 2, "unfinished"), ("summary", 0, "self-consistent")]
)
def test_an_interrupt_leaves_what_was_compared(
    validated: Validated, monkeypatch: pytest.MonkeyPatch, place: str, calls: int, verdict: str
) -> None:
    """At the third part, and in what follows the comparison."""
    own, left = alone.Alone.look, iter(range(calls))

    def interrupted(*given: object) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        own(*given)  # type: ignore[arg-type]

    if place == "look":
        monkeypatch.setattr(alone.Alone, "look", interrupted)
    else:
        monkeypatch.setattr(compare, "further_checks", interrupted)
    report = validated.of(validated.library.bundle(BY_ID[LARGE]), LARGE, upstream=False)
    assert (report.verdict, report.complete) == (verdict, False)
    names = {result.name for result in report.results}
    assert "0.mlstm.C" in names
    assert ("logits" in names) is (verdict != "unfinished")


def test_a_part_that_is_wrong_counts_though_nothing_says_why(
    validated: Validated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does another part that cannot be cut make the check a skipped one."""

    def fails(*given: object) -> None:
        raise MemoryError("no room to look")

    bundle = _copied(validated, LARGE, tmp_path)
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    _swapped_gates(model)
    onnx.save(model, bundle / "model.onnx")
    own = alone.judge_parts

    def judged(everyone: Any, *given: Any) -> Any:
        if everyone.checkpoint.spec.layers[0][0].startswith("layers.0"):
            raise ValueError("not to be cut")
        return own(everyone, *given)

    monkeypatch.setattr(alone, "locate_in", fails)
    monkeypatch.setattr(alone, "judge_parts", judged)
    report = validated.of(bundle, LARGE)
    (check,) = (c for c in report.checks if c.name == "each layer alone")
    assert check.outcome == "failed"
    assert any("where it breaks was not found: no room to look" in note for note in report.notes)


def test_without_upstream_it_is_self_consistent(validated: Validated) -> None:
    report = validated.of(validated.library.bundle(BY_ID[LARGE]), LARGE, upstream=False)
    assert report.verdict == "self-consistent"
    assert report.reader_distance is None


def _copied(validated: Validated, name: str, folder: Path) -> Path:
    bundle = validated.library.bundle(BY_ID[name])
    return Path(
        shutil.copytree(bundle, folder / "bundle", ignore=shutil.ignore_patterns("reports"))
    )
