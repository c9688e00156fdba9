"""What must not change a network's result, and how far its error grows: the checks of checkpoints'
bundles, on the calls that the network takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from xlstm_export.bundle.manifest import LENGTHS
from xlstm_export.modules.shapes import BATCH
from xlstm_export.progress import Progress
from xlstm_export.reference.network import time_dims
from xlstm_export.runtime.session import Array, Runner
from xlstm_export.validation.checks.drift import DRIFT, STEPS, judge_drift
from xlstm_export.validation.checks.gates import check_gates
from xlstm_export.validation.checks.invariance import (
    FORK,
    compare_forks,
    compare_threads,
    flat,
    judged,
    random_cut,
    short,
)
from xlstm_export.validation.checks.plan import Plan, worst_difference
from xlstm_export.validation.checks.run import Checked, run_each
from xlstm_export.validation.inputs import Feeds
from xlstm_export.validation.networks.inputs import cut_time, draw, shapes_of, steps_of
from xlstm_export.validation.networks.participants import NetworkParticipants
from xlstm_export.validation.result import Check
from xlstm_export.validation.tally import Tally, TensorResult, middle_of_samples

_NO_STATES = "every call of the network begins anew: export it with states"
_ROWS = 7
_SAME = 1e-9
"""Two float64 results of one function are no farther apart, relative."""


def run_network_checks(
    everyone: NetworkParticipants, plan: Plan, progress: Progress | None
) -> Checked:
    """Run all checks by ``plan``. A keyboard interrupt ends them, and is no error."""
    done = Checked()
    try:
        run_each({n: partial(run, everyone, plan) for n, run in _SIMPLE.items()}, done, progress)
        drift, results = check_drift(everyone, plan, progress)
        done.checks.append(drift)
        done.results += results
    except KeyboardInterrupt:
        done.complete = False
    return done


def check_splits(everyone: NetworkParticipants, plan: Plan) -> Check:
    """One call against calls of other lengths, each on the states of the one before."""
    name, steps = "one call or many", steps_of(everyone.network, everyone.shapes)
    if not everyone.manifest.states:
        return Check(name, "skipped", _NO_STATES)
    if steps < 3:
        return Check(name, "skipped", "the network takes no call of several lengths")
    random = np.random.default_rng(plan.seed)
    feeds = _drawn(everyone, 2, steps, plan.seed)
    single = plan.pick(min(12, steps), steps)
    cuts = [[1] * single + [steps - single] * (single < steps), [steps - 1, 1]]
    cuts += [random_cut(random, steps) for _ in range(plan.pick(3, 40))]
    whole, found = _run_parts(everyone, feeds, [steps]), []
    taken = [cut for cut in cuts if _takes(everyone, feeds, cut)]
    for cut in taken:
        difference = worst_difference(_run_parts(everyone, feeds, cut), whole, plan.allowed)
        found.append((difference, cut))
    if not found:
        return Check(name, "skipped", "the network takes no call of another length")
    (tensor, part), cut = max(found, key=lambda pair: pair[0][1])
    words = f"{steps} steps in one call and in {len(found)} other ways"
    return judged(name, words, tensor, part, f" cut as {short(cut)}")


def check_rows(everyone: NetworkParticipants, plan: Plan) -> Check:
    """Each row alone against all of them together."""
    name, manifest = "alone or in a batch", everyone.manifest
    if any(tensor.shape[0] != BATCH for tensor in manifest.inputs):
        return Check(name, "skipped", "the bundle takes a number of rows that is fixed")
    feeds = _one_call(everyone, _ROWS, plan.seed)
    if _apart(everyone.float64, feeds) > _SAME:
        return Check(name, "skipped", "in this network the rows of a batch reach each other")
    together, found = flat(*everyone.subject.run(feeds)), []
    for row in range(_ROWS):
        own = {n: x[row : row + 1] for n, x in feeds.items()}
        alone = flat(*everyone.subject.run(own))
        mine = {n: x[row : row + 1] for n, x in together.items()}
        found.append((worst_difference(mine, alone, plan.allowed), row))
    (tensor, part), row = max(found, key=lambda pair: pair[0][1])
    return judged(name, f"{_ROWS} rows together and each alone", tensor, part, f" row {row + 1}")


def check_padding(everyone: NetworkParticipants, plan: Plan) -> Check:
    """Rows of other lengths are a matter of a network's own mask."""
    del plan
    assert not everyone.manifest.ragged
    name = "what stands behind the end of a row"
    return Check(name, "skipped", f"the bundle has no {LENGTHS}: a network masks by inputs it has")


def check_threads(everyone: NetworkParticipants, plan: Plan) -> Check:
    """One thread against several."""
    return compare_threads(
        everyone.bundle, everyone.manifest, everyone.execution, plan,
        lambda: _one_call(everyone, 2, plan.seed),
    )  # fmt: skip


def check_fork(everyone: NetworkParticipants, plan: Plan) -> Check:
    """Go on from kept states twice, with something else between: the same bits."""
    if not everyone.manifest.states:
        return Check(FORK, "skipped", _NO_STATES)
    calls = [_one_call(everyone, 2, plan.seed + n) for n in range(3)]
    return compare_forks(everyone.subject, calls, "a call")


def check_drift(
    everyone: NetworkParticipants, plan: Plan, progress: Progress | None = None
) -> tuple[Check, list[TensorResult]]:
    """16,384 steps in calls that the network takes, judged as a checkpoint's bundle is.

    Exact is the network with our operators in float64, which was held to the network before.
    """
    if not everyone.manifest.states:
        return Check(DRIFT, "skipped", _NO_STATES), []
    if plan.budget != "full":
        return Check(DRIFT, "skipped", f"{STEPS} steps take --budget full"), []
    results = middle_of_samples(
        lambda seed: _drift(everyone, seed, progress), plan.seed, everyone.notes
    )
    return judge_drift(results), results


def _drift(
    everyone: NetworkParticipants, seed: int, progress: Progress | None
) -> list[TensorResult]:
    """One rollout of the longest calls that are drawn, of one row."""
    manifest, network = everyone.manifest, everyone.network
    longest = max(everyone.shapes[0], key=lambda call: steps_of(network, [[call]]))
    part = max(1, steps_of(network, [[longest]]))
    runners: list[Runner] = [
        everyone.subject, network.reference("float64", "chunkwise"), everyone.chunkwise,
        everyone.recurrent,
    ]  # fmt: skip
    tallies: dict[str, Tally] = {}
    states: list[Any] = [None] * len(runners)
    random, end = np.random.default_rng(seed), 0
    one_row = {name: (1, *shape[1:]) for name, shape in longest.items()}
    while end < STEPS:
        feeds = draw(network, one_row, random)
        found = [flat(*who.run(feeds, old)) for who, old in zip(runners, states, strict=True)]
        states = [{s.key: tensors[s.key] for s in manifest.states} for tensors in found]
        end += part
        for name in found[0]:
            got, exact, chunkwise, recurrent = (tensors[name] for tensors in found)
            tallies.setdefault(name, Tally()).add([got, exact, exact, recurrent, chunkwise], end)
        if progress is not None:
            progress("drift", min(end, STEPS), STEPS, "steps")
    keys = {state.key for state in manifest.states}
    return [
        tally.result(f"drift {n}", "state", "float32") if n in keys
        else tally.result(f"drift {n}", "output", manifest.dtype)
        for n, tally in tallies.items()
    ]  # fmt: skip


_SIMPLE: dict[str, Callable[[NetworkParticipants, Plan], Check]] = {
    "one call or many": check_splits,
    "alone or in a batch": check_rows,
    "what stands behind the end of a row": check_padding,
    "one thread or several": check_threads,
    "fork and restore": check_fork,
    "extreme gates": check_gates,
}
"""By the names that they give themselves."""


def _drawn(everyone: NetworkParticipants, rows: int, steps: int, seed: int) -> Feeds:
    shapes = shapes_of(everyone.network, rows, steps)
    return draw(everyone.network, shapes, np.random.default_rng(seed))


def _one_call(everyone: NetworkParticipants, rows: int, seed: int) -> Feeds:
    """The longest call that is compared, on other rows where their number is free."""
    calls = [call for rollout in everyone.shapes for call in rollout]
    shapes = max(calls, key=lambda call: max(int(np.prod(s)) for s in call.values()))
    batched = {t.name: t.shape[0] == BATCH for t in everyone.manifest.inputs}
    sized = {n: (rows, *s[1:]) if batched[n] else s for n, s in shapes.items()}
    return draw(everyone.network, sized, np.random.default_rng(seed))


def _run_parts(
    everyone: NetworkParticipants, feeds: Feeds, lengths: Sequence[int]
) -> dict[str, Array]:
    """Outputs over time, of the last call where one has no time, and last states."""
    times, start = time_dims(everyone.manifest), 0
    states: Mapping[str, Array] | None = None
    parts: list[Mapping[str, Array]] = []
    for length in lengths:
        call = cut_time(everyone.network, feeds, start, start + length)
        outputs, states = everyone.subject.run(call, states)
        parts.append(outputs)
        start += length
    assert states is not None
    joined = {
        name: np.concatenate([part[name] for part in parts], times[name])
        if name in times else parts[-1][name]
        for name in parts[0]
    }  # fmt: skip
    return flat(joined, states)


def _takes(everyone: NetworkParticipants, feeds: Feeds, lengths: Sequence[int]) -> bool:
    """Whether the network itself takes calls of ``lengths`` steps."""
    try:
        for length in set(lengths):
            everyone.float64.run(cut_time(everyone.network, feeds, 0, length))
    except Exception:  # whatever a network raises where a size does not fit it
        return False
    return True


def _apart(runner: Runner, feeds: Feeds) -> float:
    """How far the first row alone is from itself in a batch, relative to the largest value."""
    alone = flat(*runner.run({n: x[:1] for n, x in feeds.items()}))
    together = flat(*runner.run(feeds))
    return max(
        float(np.abs(together[n][:1] - x).max(initial=0.0)) / (float(np.abs(x).max()) or 1.0)
        for n, x in alone.items()
    )
