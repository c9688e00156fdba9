"""Every part of a model alone, on the exact inputs of that part: which of them are wrong.

Our float64 model runs a short rollout. At each result of a layer and around each recurrent
operator, the bundle and the torch baselines go on with its numbers instead of their own, and every
call starts from its states. So an error is that of one part, and the rule judges it as always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.model.state import state_specs
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.states import States
from xlstm_export.runtime.taps import TappedBundle
from xlstm_export.validation.behind import behind
from xlstm_export.validation.checks.rollout import BASELINE_ROWS
from xlstm_export.validation.inputs import Feeds, draw_rollouts
from xlstm_export.validation.participants import Participants
from xlstm_export.validation.tally import Tally, TensorResult, may_be_chance, ratio

_CALLS = (7, 1, 1, 33, 1)
_LAST_ONLY = (1,) * 6
"""Of a bundle that returns the last step alone, whose end sees no other."""


@dataclass(frozen=True)
class Seen:
    """What one call showed: numbers of the bundle and exact ones by tap or by state's key, and the
    exact states before it.
    """

    got: Mapping[str, Array]
    exact: Mapping[str, Array]
    before: Mapping[str, Array]


@dataclass(frozen=True)
class Wrong:
    """A part that is outside the rule on every sample: ``name`` of its tap, or key of its state.

    ``path`` is that of its layer, ``value`` its name in the graph.
    """

    name: str
    path: str
    operator: str
    value: str
    result: TensorResult


@dataclass(frozen=True)
class Parts:
    """The wrong parts in the order of computation, of a graph that was cut, and what was seen.

    ``judged`` has every part, right or wrong, by the name of its tap or the key of its state.
    """

    wrong: tuple[Wrong, ...]
    tapped: TappedBundle
    calls: tuple[Seen, ...]
    judged: Mapping[str, TensorResult]


@dataclass
class _Sample:
    tallies: dict[str, Tally] = field(default_factory=dict)
    calls: list[Seen] = field(default_factory=list)


def judge_parts(everyone: Participants, batch: int, seed: int) -> Parts:
    """Run every part of the bundle by itself; two samples must agree on what is wrong."""
    tapped = _open(everyone, seed)
    first = _sample(tapped, everyone, batch, seed)
    found = _judged(tapped, first)
    if not all(result.judgement.ok for result in found.values()):
        again = _judged(tapped, _sample(tapped, everyone, batch, seed + 1))
        found = {name: nearer(found[name], again[name]) for name in found}
    wrong = tuple(
        _wrong(tapped, everyone, name, found[name])
        for name in _in_order(tapped, everyone, found)
        if not found[name].judgement.ok
    )
    return Parts(wrong, tapped, tuple(first.calls), found)


def _judged(tapped: TappedBundle, sample: _Sample) -> dict[str, TensorResult]:
    kinds = {tap.name: tap.dtype for tap in tapped.taps}
    return {
        name: tally.result(name, "part", kinds.get(name, "float32"))
        for name, tally in sample.tallies.items()
    }


def nearer(first: TensorResult, second: TensorResult) -> TensorResult:
    """The better of two where it is within the rule and the other may be chance; else the worse."""
    better, worse = sorted((first, second), key=lambda result: ratio(result.judgement))
    return better if better.judgement.ok and may_be_chance(worse) else worse


def _open(everyone: Participants, seed: int) -> TappedBundle:
    """The graph cut wherever it holds a tensor in the shape in which our model does."""
    bundle, manifest = everyone.bundle, everyone.manifest
    how = {"threads": everyone.execution.threads, "native": everyone.execution.native}
    feeds = _calls(everyone, manifest, 2, seed)[0][0]
    states = States.zeros(manifest, 2) if manifest.takes_states else None
    exact, _ = everyone.float64.run_tapped(feeds, states, {})
    whole = TappedBundle(bundle, manifest, exact, is_cut=False, **how)  # type: ignore[arg-type]
    got, _ = whole.run(feeds, states or {}, exact)
    known = {name: exact[name] for name in got if got[name].shape == exact[name].shape}
    return TappedBundle(bundle, manifest, known, **how)  # type: ignore[arg-type]


def _calls(everyone: Participants, manifest: Manifest, rows: int, seed: int) -> list[list[Feeds]]:
    """Rollouts of a few calls; of a model that begins every rollout otherwise, the first call."""
    spec = everyone.spec
    if not spec.has_sequence:
        return [[rollout[0]] for rollout in draw_rollouts(spec, rows, seed)]
    lengths = _LAST_ONLY if manifest.logits == "last" else _CALLS
    inputs, ends = everyone.sequence(rows, sum(lengths), seed), 0
    calls: list[Feeds] = []
    for length in lengths:
        calls.append({spec.inputs[0].name: inputs[:, ends : ends + length]})
        ends += length
    return [calls]


def _sample(tapped: TappedBundle, everyone: Participants, batch: int, seed: int) -> _Sample:
    sample, manifest = _Sample(), tapped.manifest
    cuts = [tap.name for tap in tapped.taps]
    baselines = (everyone.recurrent, everyone.chunkwise)
    rows = batch + BASELINE_ROWS
    with behind() as later:  # a call is judged while the next one is computed
        for rollout in _calls(everyone, manifest, rows, seed):
            states: Mapping[str, Array] | None = None
            if manifest.takes_states:
                states = States.zeros(manifest, rows)
            for feeds in rollout:
                exact, after = everyone.float64.run_tapped(feeds, states, {})
                got, got_after = tapped.run(feeds, states or {}, exact)
                forced = {name: exact[name] for name in cuts}
                forms = [form.run_tapped(feeds, states, forced) for form in baselines]
                seen = Seen({**got, **got_after}, {**exact, **after}, states or {})
                later(_judge, sample, seen, [{**a, **b} for a, b in forms])
                states = after if manifest.takes_states else None
    return sample


def _judge(sample: _Sample, seen: Seen, forms: Sequence[Mapping[str, Array]]) -> None:
    """Add one call to ``sample``; ``forms`` are the baselines' numbers by name."""
    for name, got in seen.got.items():
        exact = seen.exact[name]
        _add(sample, name, [got, exact, exact, *(form[name] for form in forms)])
    sample.calls.append(seen)


def _add(sample: _Sample, name: str, tensors: list[Array]) -> None:
    """Subject, exact twice, baselines; a missing observation is NaN, in whoever keeps it so."""
    is_missing = np.isnan(tensors[1])
    if is_missing.any():
        tensors = [np.where(is_missing & np.isnan(tensor), 0, tensor) for tensor in tensors]
    sample.tallies.setdefault(name, Tally()).add(tensors)


def _in_order(
    tapped: TappedBundle, everyone: Participants, judged: Mapping[str, object]
) -> list[str]:
    """Taps as they are computed; the states of a layer after what its operators give out."""
    states: dict[str, list[str]] = {}
    for state in state_specs(everyone.spec):
        if state.key in judged:
            states.setdefault(state.path, []).append(state.key)
    order = []
    for tap in tapped.taps:
        path = _path(tap.name)
        if tap.name == path:  # the result of the layer: its operators are through
            order += states.pop(path, [])
        order.append(tap.name)
    return order + [key for keys in states.values() for key in keys]


def _wrong(tapped: TappedBundle, everyone: Participants, name: str, result: TensorResult) -> Wrong:
    for tap in tapped.taps:
        if tap.name == name:
            operator = f"{tap.op_type} {tap.node}" if tap.node else tap.op_type
            return Wrong(name, _path(name), operator, tap.got, result)
    (state,) = [s for s in state_specs(everyone.spec) if s.key == name]
    (info,) = [s for s in tapped.manifest.states if s.key == name]
    (node,) = [n for n in tapped.model.graph if any(v.name == info.output for v in n.outputs)]
    return Wrong(name, state.path, f"{node.op_type} {node.name}".rstrip(), info.output, result)


def _path(name: str) -> str:
    return name.partition(" ")[0]
