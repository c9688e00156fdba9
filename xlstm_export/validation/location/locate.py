"""From a failed comparison to one place and one cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.lowering.differences import adds_eps_inside, changed_bodies, differences
from xlstm_export.lowering.lower import lower_model
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.validation.location.causes import UNKNOWN, body_words, likely_cause
from xlstm_export.validation.location.parts import Parts, Wrong, judge_parts
from xlstm_export.validation.participants import Both, Participants
from xlstm_export.validation.result import Location
from xlstm_export.validation.tally import TensorResult, ratio

_MOST_OTHERS = 8


def locate_fault(
    everyone: Participants, results: Sequence[TensorResult], batch: int, seed: int
) -> Location | None:
    """The first wrong part of the graph, or the operator that is wrong by itself.

    None where neither is: the fault is not in the graph as ONNX Runtime's CPU computes it.
    """
    parts = judge_parts(everyone, batch, seed)
    expected = expected_graph(everyone)
    found = locate_in(parts, expected)
    taps = [tap.name for tap in parts.tapped.taps]
    return found or locate_operator(taps, results, eps_inside(parts.tapped.model, expected))


def expected_graph(both: Participants | Both) -> Any:
    """The graph that the checkpoint gives, of which no weight is read yet."""
    checkpoint = both.checkpoint
    return lower_model(checkpoint.spec, checkpoint.weights, _options(both.manifest))


def locate_in(parts: Parts, expected: Any) -> Location | None:
    """The first wrong part beside the ``expected_graph``; None where none is wrong."""
    if not parts.wrong:
        return None
    model, (first, *rest) = parts.tapped.model, parts.wrong
    inside = eps_inside(model, expected)
    cause = likely_cause(first, parts.calls, differences(first.value, model, expected), inside)
    return Location(
        first.path, first.operator, _tensor(first), first.result.judgement.max_error,
        first.result.judgement.max_allowed, cause, _others(rest),
    )  # fmt: skip


def eps_inside(model: Any, expected: Any) -> dict[str, bool]:
    """Operators with changed bodies, and whether eps is inside the maximum there."""
    return {op: adds_eps_inside(model, op) for op in changed_bodies(model, expected)}


def _options(manifest: Manifest) -> LoweringOptions:
    """What the bundle was exported with, as far as it changes weights and nodes."""
    return LoweringOptions(
        dtype=manifest.dtype,  # type: ignore[arg-type]
        opset=manifest.opset,
        logits=manifest.logits,  # type: ignore[arg-type]
        ragged=manifest.ragged,
        numerics=manifest.numerics,
        low_bit=manifest.low_bit,
    )


def _tensor(wrong: Wrong) -> str:
    return wrong.name if wrong.name != wrong.path else "the layer's result"


def _others(rest: Sequence[Wrong]) -> tuple[str, ...]:
    return shortened([f"{wrong.path}: {_tensor(wrong)}" for wrong in rest])


def shortened(names: Sequence[str]) -> tuple[str, ...]:
    """Further wrong places, of many the first."""
    more = len(names) - _MOST_OTHERS
    return (*names[:_MOST_OTHERS], *([f"and {more} more"] if more > 0 else []))


def locate_operator(
    taps: Sequence[str], results: Sequence[TensorResult], inside: Mapping[str, bool]
) -> Location | None:
    """A failed check of an operator alone, on inputs that the rollout did not reach.

    ``taps`` are names of all of the model, ``inside`` is ``eps_inside``.
    """
    failed = [r for r in results if r.kind == "operator" and not r.judgement.ok]
    if not failed:
        return None
    worst = max(failed, key=lambda result: ratio(result.judgement))
    op_type = worst.name.partition("#")[0]
    layers = [tap.partition(" ")[0] for tap in taps if f" {op_type}." in tap]
    cause = body_words(op_type, inside[op_type]) if op_type in inside else UNKNOWN
    judgement = worst.judgement
    return Location(
        ", ".join(dict.fromkeys(layers)) or "every layer that has it", op_type, worst.name,
        judgement.max_error, judgement.max_allowed, cause,
        tuple(r.name for r in failed if r is not worst)[:_MOST_OTHERS],
    )  # fmt: skip
