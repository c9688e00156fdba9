"""What takes a walk of its own through a model in parts: a text, drift, recorded numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xlstm_export.runtime.session import MOST_STEPS, Array, split_time
from xlstm_export.validation.checks.drift import DRIFT, STEPS, drift_calls, judge_drift
from xlstm_export.validation.checks.plan import Plan
from xlstm_export.validation.checks.samples import compare_samples
from xlstm_export.validation.checks.text import BY_POSITION, GREEDY, judge_losses, text_tokens
from xlstm_export.validation.measures.language import next_token_loss
from xlstm_export.validation.result import Check
from xlstm_export.validation.samples import Sample
from xlstm_export.validation.segments.chain import Who
from xlstm_export.validation.segments.walk import Walk
from xlstm_export.validation.tally import TensorResult, middle_of_samples

_EACH_TOKEN = (
    "every token needs all layers before the next one, so all weights would be read for each; it "
    "takes --memory for the whole model"
)


def further_checks(walk: Walk, plan: Plan) -> tuple[list[Check], list[TensorResult]]:
    """Text, greedy tokens, and drift; of the last also its results."""
    alone = replace(walk, module=None, batch=1)
    drift, results = _drift(alone, plan)
    return [_text(alone, plan), Check(GREEDY, "skipped", _EACH_TOKEN), drift], results


def recorded_results(walk: Walk, samples: Sequence[Sample]) -> list[TensorResult]:
    """The bundle against numbers that were recorded elsewhere."""
    if not samples:
        return []
    both = walk.both
    rows = max(len(next(iter(sample.inputs.values()))) for sample in samples)
    walk = replace(walk, module=None, batch=rows)
    calls = [[sample.inputs] for sample in samples]
    with walk.through(calls, "recorded samples", keep=lambda _, output: output) as chain:
        subject, float64 = chain.replay("subject"), chain.replay("float64")
        baselines = (chain.replay("recurrent"), chain.replay("chunkwise"))
        return compare_samples(subject, float64, baselines, samples, both.manifest, both.notes)


def _text(walk: Walk, plan: Plan) -> Check:
    manifest = walk.both.manifest
    if not manifest.is_language_model or manifest.logits == "last":
        return Check(BY_POSITION, "skipped", "the bundle gives no logits of every step")
    if plan.text is None or len(plan.text) < 2:
        return Check(BY_POSITION, "skipped", "no text was given: --inputs FILE")
    name, tokens = manifest.inputs[0].name, text_tokens(plan)
    calls = [{name: part} for part in split_time(tokens[:, :-1], MOST_STEPS)]
    following = list(split_time(tokens[:, 1:], MOST_STEPS))

    def losses(call: int, logits: Array) -> Array:
        return next_token_loss(logits, following[call])

    who: tuple[Who, ...] = ("subject", "float64", "recurrent")
    with walk.through([calls], "text, layer by layer", keep=losses) as chain:
        loss, exact, torch = (np.concatenate(list(chain.kept(w)), axis=1)[0] for w in who)
    return judge_losses(loss, exact, torch, plan)


def _drift(walk: Walk, plan: Plan) -> tuple[Check, list[TensorResult]]:
    if not walk.both.manifest.states:
        return Check(DRIFT, "skipped", "the model carries no states"), []
    if plan.budget != "full":
        return Check(DRIFT, "skipped", f"{STEPS} steps take --budget full"), []

    def sample(seed: int) -> list[TensorResult]:
        with walk.through([drift_calls(walk.both, seed)], "drift, layer by layer") as chain:
            return [replace(r, name=f"drift {r.name}") for r in chain.results()]

    results = middle_of_samples(sample, plan.seed, walk.both.notes)
    return judge_drift(results), results
