"""Two bundles side by side: what is judged, what is told, and what cannot be compared."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from tests.validation.gathered import gathered
from xlstm_export.bundle.manifest import read_manifest, write_manifest
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.runtime.open import Execution
from xlstm_export.validation.against import Against
from xlstm_export.validation.checks.against import Compared, check_other, compare_against
from xlstm_export.validation.checks.plan import Plan
from xlstm_export.validation.inputs import draw_rollouts
from xlstm_export.validation.participants import Participants

STACK = BY_ID["stack-mixed"]
HALF = LoweringOptions(dtype="float16")


@pytest.fixture(scope="module")
def everyone(library: Library) -> Participants:
    return gathered(library, STACK)


def _compare(everyone: Participants, other: Path) -> Compared:
    drawn = [rollout[:6] for rollout in draw_rollouts(everyone.spec, 2, 0)]
    names = [tensor.name for tensor in everyone.manifest.outputs]
    names += [state.key for state in everyone.manifest.states]
    plan = Plan("fast", 0, dict.fromkeys(names, 1e-5))
    return compare_against(everyone, other, drawn, 2, plan, None)


def _garbled(bundle: Path, folder: Path, dtype: str, factor: float) -> Path:
    """A copy with half of the weights times ``factor``."""
    other = Path(shutil.copytree(bundle, folder / "other"))
    data = np.fromfile(other / "model.onnx.data", dtype)
    with np.errstate(invalid="ignore"):
        data[: len(data) // 2] *= factor
    data.tofile(other / "model.onnx.data")
    return other


@pytest.fixture(scope="module")
def two_precisions(library: Library, everyone: Participants) -> Compared:
    return _compare(everyone, library.bundle(STACK, HALF))


def test_two_precisions_are_told_and_not_judged(two_precisions: Compared) -> None:
    against, check = two_precisions.against, two_precisions.check
    assert not against.is_judged
    assert "one is in float32, the other in float16" in against.reason
    assert check.outcome == "skipped"
    assert against.words in check.reason
    assert "KL divergence" in check.reason


def test_both_stand_beside_the_same_exact_numbers(two_precisions: Compared) -> None:
    against = two_precisions.against
    assert "float64" in against.exact
    for tensor in against.tensors:
        assert tensor.bundle is not None
        assert tensor.other is not None
        assert 0 < 10 * tensor.bundle.rms < tensor.other.rms, tensor.name
        # two are no further apart than both are from a third
        assert tensor.apart.rms <= 1.001 * (tensor.bundle.rms + tensor.other.rms)
        assert tensor.apart.largest >= tensor.other.largest - tensor.bundle.largest
    logits, *states = against.tensors
    assert logits.name == "logits"
    assert "0.mlstm.C" in {state.name for state in states}
    assert logits.apart.by_step is not None
    assert logits.apart.by_step.steps == tuple(range(1, 13))
    assert logits.apart.language is not None
    assert 0.9 < logits.apart.language.top1 <= 1
    assert logits.apart.language.kl_mean > 0


def test_both_go_on_from_one_prompt(two_precisions: Compared) -> None:
    (text,) = two_precisions.continuations
    assert text.beside == two_precisions.against.bundle
    assert text.tokens == 16


def test_two_ways_to_write_one_computation_are_judged(
    library: Library, everyone: Participants
) -> None:
    """The last step of a ragged bundle is that of a plain one, to rounding."""
    other = library.bundle(STACK, LoweringOptions(ragged=True, logits="last"))
    compared = _compare(everyone, other)
    assert compared.against.is_judged
    assert compared.check.outcome == "passed"
    assert 0 <= compared.against.worst.part <= 1
    assert {tensor.allowed for tensor in compared.against.tensors} == {2e-5}


def test_a_faulty_other_is_named(library: Library, tmp_path: Path) -> None:
    bundle = library.bundle(STACK)
    other = _garbled(bundle, tmp_path, "float32", 1.01)
    source = library.source(STACK).path
    report = xe.validate(bundle, source, against=other, upstream=False, threads=1)
    assert report.verdict == "failed"
    assert report.against is not None
    assert report.against.worst.part > 1
    assert all(result.judgement.ok for result in report.results)
    assert report.location is None
    logits = report.against.tensors[0]
    assert logits.bundle is not None
    assert logits.other is not None
    assert logits.other.rms > 100 * logits.bundle.rms
    assert f"--against {other}" in report.command
    page, text = report.to_html(), report.to_markdown()
    for words in (str(other), report.against.bundle_sha256, "computes other numbers"):
        assert words in page
        assert words in text
    assert "| `logits` | " in text.partition("## Against")[2]
    assert "largest differences by step" in page
    assert [c.beside for c in report.continuations] == ["reference", str(other)]


def test_numbers_that_are_none_fail_also_where_nothing_is_judged(
    library: Library, everyone: Participants, tmp_path: Path
) -> None:
    compared = _compare(
        everyone, _garbled(library.bundle(STACK, HALF), tmp_path, "float16", np.nan)
    )
    assert compared.check.outcome == "failed"
    assert compared.against.words.startswith("NaN or infinity in ")


def test_another_checkpoint_has_no_exact_numbers_of_both(
    library: Library, everyone: Participants, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(library.bundle(STACK), tmp_path / "other"))
    manifest = read_manifest(other)
    write_manifest(replace(manifest, source=replace(manifest.source, sha256="0" * 64)), other)
    against = _compare(everyone, other).against
    assert against.exact == ""
    assert "different checkpoints" in against.reason
    assert {tensor.other for tensor in against.tensors} == {None}


def test_what_only_one_carries_is_left_out(library: Library, everyone: Participants) -> None:
    against = _compare(everyone, library.bundle(BY_ID["stack-mlstm-only"])).against
    assert {"1.slstm.c", "1.mlstm.n"} <= set(against.left_out)
    assert not set(against.left_out) & {tensor.name for tensor in against.tensors}


def test_forecasters_are_compared_in_units_of_the_series(library: Library) -> None:
    case = BY_ID["tirex-small"]
    other = library.bundle(case, LoweringOptions(dtype="bfloat16"))
    against = _compare(gathered(library, case), other).against
    forecast = against.tensors[0].apart.forecast
    assert forecast is not None
    assert 0 < forecast.spread_rms <= forecast.spread_error


def test_bundles_of_other_interfaces_are_refused(library: Library) -> None:
    bundle = library.bundle(STACK)
    with pytest.raises(xe.BundleError, match=r"they take different tensors \(input_ids int64"):
        check_other(bundle, library.bundle(BY_ID["stack-bare"]), Execution())
    with pytest.raises(xe.BundleError, match="cannot be compared"):
        check_other(bundle, library.bundle(BY_ID["vil-one"]), Execution())
    with pytest.raises(xe.BundleError, match="no such folder"):
        check_other(bundle, Path("nowhere"), Execution())


def test_a_bundle_beside_itself_runs_by_its_bodies(
    library: Library, everyone: Participants
) -> None:
    against: Against = _compare(everyone, everyone.bundle).against
    assert against.is_judged
    assert "function bodies" in str(against.subject_ops)
    with pytest.raises(xe.OptionError, match="would run the same way"):
        check_other(everyone.bundle, everyone.bundle, Execution(native=False))
