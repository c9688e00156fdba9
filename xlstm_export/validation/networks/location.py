"""Every part of a network's bundle alone, on that part's exact inputs: the first that is wrong.

The graph is cut around each recurrence. What goes into one and comes out is computed by the
network with our operators in float64; from there bundle and baselines go on with its numbers, and
every call starts from its states. So an error is that of one part: of an operator, or of what lies
between two of them. The graph that an export of the network gives now says what is other there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.modules.export import export_network
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.states import States
from xlstm_export.runtime.taps import TappedBundle
from xlstm_export.validation.inputs import Rollout
from xlstm_export.validation.location.locate import eps_inside, locate_in, locate_operator
from xlstm_export.validation.location.parts import Parts, Seen, Wrong, nearer
from xlstm_export.validation.networks.inputs import draw_all
from xlstm_export.validation.networks.participants import NetworkParticipants
from xlstm_export.validation.result import Location
from xlstm_export.validation.tally import Tally, TensorResult

_END = "the end of the network"


def locate_in_network(
    everyone: NetworkParticipants, results: Sequence[TensorResult], seed: int
) -> Location | None:
    """The first wrong part of the graph, or the operator that is wrong by itself.

    None where neither is: the fault is not in the graph as ONNX Runtime's CPU computes it.
    """
    tapped = _open(everyone, seed)
    judged, calls = _judge(tapped, everyone, seed)
    if not all(result.judgement.ok for result in judged.values()):
        again, _ = _judge(tapped, everyone, seed + 1)
        judged = {name: nearer(result, again[name]) for name, result in judged.items()}
    wrong = tuple(_wrong(tapped, r) for r in judged.values() if not r.judgement.ok)
    expected = _expected(everyone)
    found = locate_in(Parts(wrong, tapped, tuple(calls), judged), expected)
    if found is not None:
        return replace(found, cause=found.cause.replace("checkpoint", "network"))
    names = [tap.name for tap in tapped.taps]
    return locate_operator(names, results, eps_inside(tapped.model, expected))


def _open(everyone: NetworkParticipants, seed: int) -> TappedBundle:
    """The graph cut wherever it holds a tensor in the shape in which the network does."""
    bundle, manifest, execution = everyone.bundle, everyone.manifest, everyone.execution
    rows, feeds = everyone.rows, next(draw_all(everyone.network, everyone.shapes, seed))[0]
    states = States.zeros(manifest, rows)
    exact, _ = everyone.float64.run_tapped(feeds, states, {})

    def opened(like: Mapping[str, Array], is_cut: bool) -> TappedBundle:
        return TappedBundle(
            bundle, manifest, like, threads=execution.threads, native=execution.native,
            is_cut=is_cut,
        )  # fmt: skip

    got, _ = opened(exact, False).run(feeds, states, exact)
    return opened({n: exact[n] for n in got if got[n].shape == exact[n].shape}, True)


def _judge(
    tapped: TappedBundle, everyone: NetworkParticipants, seed: int
) -> tuple[dict[str, TensorResult], list[Seen]]:
    """Every part in the order of computation, then the states; and what was seen of them."""
    tallies: dict[str, Tally] = {}
    calls: list[Seen] = []
    for rollout in draw_all(everyone.network, everyone.shapes, seed):
        calls += _roll(tapped, everyone, rollout, tallies)
    kinds = {tap.name: tap.dtype for tap in tapped.taps}
    keys = _states_in_order(tapped.manifest, [*kinds])
    return {
        name: tallies[name].result(name, "part", kinds.get(name, "float32")) for name in keys
    }, calls


def _roll(
    tapped: TappedBundle, everyone: NetworkParticipants, rollout: Rollout,
    tallies: dict[str, Tally],
) -> list[Seen]:  # fmt: skip
    """The calls of one rollout, each from exact states, added to ``tallies``."""
    states, calls = States.zeros(tapped.manifest, everyone.rows), []
    cuts = [tap.name for tap in tapped.taps if tap.exact]
    for feeds in rollout:
        exact, after = everyone.float64.run_tapped(feeds, states, {})
        got, got_after = tapped.run(feeds, states, exact)
        forced = {name: exact[name] for name in cuts}
        forms = [
            form.run_tapped(feeds, states, forced)
            for form in (everyone.recurrent, everyone.chunkwise)
        ]
        for name, x in got.items():
            own = [x, exact[name], exact[name], *(seen[name] for seen, _ in forms)]
            tallies.setdefault(name, Tally()).add(own)
        for key, x in got_after.items():
            own = [x, after[key], after[key], *(form_after[key] for _, form_after in forms)]
            tallies.setdefault(key, Tally()).add(own)
        calls.append(Seen({**got, **got_after}, {**exact, **after}, states))
        states = States(after)
    return calls


def _states_in_order(manifest: Manifest, taps: Sequence[str]) -> list[str]:
    """Names of taps as they are computed, a recurrence's states behind what it gives out."""
    keys = [state.key for state in manifest.states]
    paths = [name.partition(" ")[0] for name in taps]
    order: list[str] = []
    for at, (name, path) in enumerate(zip(taps, paths, strict=True)):
        order.append(name)
        if path not in paths[at + 1 :]:
            order += [key for key in keys if key.rpartition(".")[0] == path]
    return order + [key for key in keys if key not in order]


def _expected(everyone: NetworkParticipants) -> Any:
    """The graph that an export of the network gives now."""
    manifest, network = everyone.manifest, everyone.network
    free = {
        tensor.name: {d: size for d, size in enumerate(tensor.shape) if isinstance(size, str)}
        for tensor in manifest.inputs
    }
    return export_network(
        network.module, network.given, dynamic_shapes=free, states=bool(manifest.states),
        dtype=manifest.dtype, opset=manifest.opset,  # type: ignore[arg-type]
        output_names=[tensor.name for tensor in manifest.outputs],
    ).model  # fmt: skip


def _wrong(tapped: TappedBundle, result: TensorResult) -> Wrong:
    name = result.name
    for tap in tapped.taps:
        if tap.name == name:
            path, _, inside = name.partition(" ")
            operator = f"{tap.op_type} {tap.node}".rstrip()
            return Wrong(name, path if inside else _END, operator, tap.got, result)
    (info,) = [state for state in tapped.manifest.states if state.key == name]
    (node,) = [n for n in tapped.model.graph if any(v.name == info.output for v in n.outputs)]
    operator = f"{node.op_type} {node.name}".rstrip()
    return Wrong(name, name.rpartition(".")[0], operator, info.output, result)
