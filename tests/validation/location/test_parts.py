"""Cutting a graph changes no number: of a right bundle no part is wrong, in every precision."""

from __future__ import annotations

import math

import pytest

from tests.model_cases import BY_ID, Library
from tests.validation.test_validate import result_of
from xlstm_export import pipeline
from xlstm_export.bundle.checksum import bundle_sha256
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.families.registry import find_family
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.runtime.open import Execution
from xlstm_export.validation.location.parts import judge_parts, nearer
from xlstm_export.validation.participants import gather, read_both


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("stack-mixed", LoweringOptions(), 30),
        ("stack-mixed", LoweringOptions(dtype="float16"), 30),
        ("stack-bare", LoweringOptions(dtype="bfloat16"), 30),
        ("large-single", LoweringOptions(logits="last"), 20),
        ("hf-plain", LoweringOptions(ragged=True), 20),
        ("vil-two", LoweringOptions(), 8),
        ("tirex-small", LoweringOptions(), 6),
    ],
    ids=str,
)
def test_no_part_of_a_right_bundle_is_wrong(
    library: Library, name: str, options: LoweringOptions, least: int
) -> None:
    bundle, source = library.bundle(BY_ID[name], options), library.source(BY_ID[name])
    module = find_family(source, "auto")
    everyone = gather(
        read_both(
            bundle, read_manifest(bundle), bundle_sha256(bundle), source, module,
            Execution(threads=1), None,
        ),
        module, False, None,
    )  # fmt: skip
    parts = judge_parts(everyone, batch=2, seed=3)
    assert [wrong.name for wrong in parts.wrong] == []
    assert len(parts.tapped.taps) >= least
    assert pipeline.read_checkpoint(source).spec.family == everyone.manifest.family


@pytest.mark.parametrize(
    ("errors", "is_ok"),
    [((1.5, 0.5), True), ((1.5, 1.2), False), ((math.inf, 0.5), False), ((0.5, 101.0), False)],
)
def test_of_two_samples_one_may_be_chance(errors: tuple[float, float], is_ok: bool) -> None:
    assert nearer(*map(result_of, errors)).judgement.ok is is_ok
