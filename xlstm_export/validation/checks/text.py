"""What a language model does with text: the tokens it chooses, and how well it predicts one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xlstm_export.errors import XlstmExportError
from xlstm_export.generation.text import open_codec
from xlstm_export.runtime.session import MOST_STEPS, Array, Runner, split_time
from xlstm_export.validation.checks.plan import Plan
from xlstm_export.validation.inputs import rollout_inputs
from xlstm_export.validation.measures.language import next_token_loss, perplexity
from xlstm_export.validation.participants import Participants
from xlstm_export.validation.result import Check, Continuation, Outcome

BY_POSITION = "text, by position"
GREEDY = "greedy tokens"
_PROMPT = 16
_PARTS = 48
"""Points of the curve of losses over positions."""


def check_greedy(everyone: Participants, plan: Plan) -> tuple[Check, tuple[Continuation, ...]]:
    """Bundle and reference go on from one prompt, each by its own likeliest tokens.

    Where they part, the exact logits of both tokens must be closer than rounding explains.
    """
    name = GREEDY
    if not everyone.manifest.is_language_model:
        return Check(name, "skipped", "no language model"), ()
    prompt, count = _prompt(everyone, plan)
    own, _ = _greedy(everyone.subject, prompt, count)
    exact, logits = _greedy(everyone.runners.reference, prompt, count)
    texts = (_continuation(everyone, prompt[0], own, exact),)
    same = texts[0].same
    if same == count:
        return Check(name, "passed", f"{count} tokens, all the same"), texts
    margin = float(logits[same][exact[same]] - logits[same][own[same]])
    allowed = 2 * plan.allowed["logits"]
    words = (
        f"the first {same} of {count} are the same; then the exact logits of both choices are "
        f"{margin:.1e} apart, where rounding explains {allowed:.1e}"
    )
    return Check(name, "passed" if margin <= allowed else "failed", words), texts


def continue_greedily(
    everyone: Participants, plan: Plan, other: Runner, beside: str
) -> tuple[Continuation, ...]:
    """Bundle and ``other``, called ``beside``, go on from one prompt; nothing where no text is."""
    if not everyone.manifest.is_language_model:
        return ()
    prompt, count = _prompt(everyone, plan)
    (own, _), (its, _) = (_greedy(who, prompt, count) for who in (everyone.subject, other))
    return (_continuation(everyone, prompt[0], own, its, beside),)


def check_length(everyone: Participants, plan: Plan) -> Check:
    """The loss on a text, position by position, far beyond any chunk: bundle beside reference.

    The mean losses may differ by twice as much as torch's in this precision does, plus what one
    unit in the last place of the largest logit makes of them.
    """
    name = BY_POSITION
    if not everyone.manifest.is_language_model or everyone.manifest.logits == "last":
        return Check(name, "skipped", "the bundle gives no logits of every step")
    if plan.text is None or len(plan.text) < 2:
        return Check(name, "skipped", "no text was given: --inputs FILE")
    reference = everyone.float64 if plan.budget == "fast" else everyone.runners.reference
    runners, tokens = (everyone.subject, reference, everyone.recurrent), text_tokens(plan)
    loss, exact, torch = (_losses(runner, tokens) for runner in runners)
    return judge_losses(loss, exact, torch, plan)


def text_tokens(plan: Plan) -> Array:
    """Token ids [1, T] of the text that is predicted, the last one only foretold."""
    assert plan.text is not None
    tokens: Array = plan.text[None, : plan.pick(512, 16_384) + 1]
    return tokens


def judge_losses(loss: Array, exact: Array, torch: Array, plan: Plan) -> Check:
    """What the losses [T] of the bundle, of the reference and of torch's baseline say."""
    found = perplexity(loss, exact)
    own, baseline = (abs(float((x - exact).mean())) for x in (loss, torch))
    allowed = 2 * baseline + plan.allowed["logits"]
    words = (
        f"{found.tokens} tokens: perplexity {found.subject:.4f}, of the reference "
        f"{found.reference:.4f} ({100 * found.change:+.2g} %)"
    )
    series = {"bundle": _curve(loss), "reference": _curve(exact)}
    outcome: Outcome = "passed" if own <= allowed else "failed"
    return Check(BY_POSITION, outcome, words, series, "loss, nats a token")


def _prompt(everyone: Participants, plan: Plan) -> tuple[Array, int]:
    """Token ids [1,T], and how many are to follow."""
    prompt = rollout_inputs(everyone.spec, 1, _PROMPT, plan.seed)
    if plan.text is not None:
        prompt = plan.text[None, :_PROMPT]
    return prompt, plan.pick(16, 200)


def _greedy(runner: Runner, prompt: Array, count: int) -> tuple[list[int], list[Array]]:
    """The likeliest tokens one after the other, and the logits [vocab] each was chosen by."""
    states: Mapping[str, Array] | None = None
    tokens: list[int] = []
    chosen_by: list[Array] = []
    feed = prompt
    for _ in range(count):
        outputs, states = runner.run({"input_ids": feed}, states)
        chosen_by.append(np.asarray(outputs["logits"])[0, -1])
        tokens.append(int(chosen_by[-1].argmax()))
        feed = np.array([[tokens[-1]]], np.int64)
    return tokens, chosen_by


def _continuation(
    everyone: Participants, prompt: Array, own: list[int], its: list[int], beside: str = "reference"
) -> Continuation:
    """As text where the bundle has a tokenizer, else as numbers."""
    try:
        codec = open_codec(everyone.bundle)
    except XlstmExportError:
        codec = None

    def words(ids: list[int]) -> str:
        return " ".join(map(str, ids)) if codec is None else codec.decode(ids)

    same = next((i for i, (a, b) in enumerate(zip(own, its, strict=True)) if a != b), len(own))
    shown = (words(prompt.tolist()), words(own), words(its))
    return Continuation(*shown, len(own), same, beside)


def _losses(runner: Runner, tokens: Array) -> Array:
    """Losses [T-1] of tokens [1,T], in pieces with carried states."""
    states: Mapping[str, Array] | None = None
    losses: list[Array] = []
    for part in split_time(tokens[:, :-1], MOST_STEPS):
        start = sum(loss.shape[1] for loss in losses)
        outputs, states = runner.run({"input_ids": part}, states)
        following = tokens[:, start + 1 : start + 1 + part.shape[1]]
        losses.append(next_token_loss(np.asarray(outputs["logits"]), following))
    result: Array = np.concatenate(losses, axis=1)[0]
    return result


def _curve(losses: Array) -> tuple[tuple[int, float], ...]:
    """Mean losses of stretches, each at its last position."""
    parts = np.array_split(losses, min(_PARTS, len(losses)))
    ends = np.cumsum([len(part) for part in parts])
    return tuple((int(end), float(part.mean())) for end, part in zip(ends, parts, strict=True))
