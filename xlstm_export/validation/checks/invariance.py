"""What must not change a result: where a sequence is cut, who else is in the batch, how many
threads compute, what stands behind the end of a row, and whether a state was kept meanwhile.

Each check runs the bundle twice and compares it with itself: two results of one computation may
differ by twice what the rule allows one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from xlstm_export.bundle.manifest import LENGTHS, Manifest
from xlstm_export.runtime.open import Execution
from xlstm_export.runtime.session import Array, Runner
from xlstm_export.validation.checks.plan import Plan, takes_sequences, worst_difference
from xlstm_export.validation.inputs import Feeds, draw_rollouts
from xlstm_export.validation.participants import Participants, open_subject
from xlstm_export.validation.result import Check

FORK = "fork and restore"
_STEPS = 70
"""Beyond a chunk of the chunkwise form, and no multiple of one."""
_ROWS = 7
"""More than the rollout has: a fault may be in any row."""


def check_splits(everyone: Participants, plan: Plan) -> Check:
    """One call against calls of other lengths, each on the states of the one before."""
    name = "one call or many"
    if not takes_sequences(everyone):
        return Check(name, "skipped", "the model takes no sequence with carried states")
    random = np.random.default_rng(plan.seed)
    inputs = everyone.sequence(2, _STEPS, plan.seed)
    whole = flat(*_run_parts(everyone, inputs, [_STEPS]))
    single = plan.pick(12, _STEPS)
    cuts = [[1] * single + [_STEPS - single] * (single < _STEPS), [_STEPS - 1, 1]]
    cuts += [random_cut(random) for _ in range(plan.pick(3, 40))]
    found = [
        (worst_difference(flat(*_run_parts(everyone, inputs, cut)), whole, plan.allowed), cut)
        for cut in cuts
    ]
    (tensor, part), cut = max(found, key=lambda pair: pair[0][1])
    words = f"{_STEPS} steps in one call and in {len(cuts)} other ways"
    return judged(name, words, tensor, part, f" cut as {short(cut)}")


def check_batch(everyone: Participants, plan: Plan) -> Check:
    """Each row alone against all of them together."""
    name = "alone or in a batch"
    calls = [rollout[0] for rollout in draw_rollouts(everyone.spec, _ROWS, plan.seed)]
    calls = [_shortened(everyone, call) for call in calls[: plan.pick(1, 4)]]
    found = []
    for call in calls:
        together = flat(*everyone.subject.run(call))
        for row in range(_ROWS):
            alone = flat(*everyone.subject.run({n: x[row : row + 1] for n, x in call.items()}))
            own = {n: x[row : row + 1] for n, x in together.items()}
            own = {n: x for n, x in own.items() if x.shape == alone[n].shape}
            found.append((worst_difference(own, alone, plan.allowed), row))
    (tensor, part), row = max(found, key=lambda pair: pair[0][1])
    return judged(name, f"{_ROWS} rows together and each alone", tensor, part, f" row {row + 1}")


def check_threads(everyone: Participants, plan: Plan) -> Check:
    """One thread against several."""
    return compare_threads(
        everyone.bundle, everyone.manifest, everyone.execution, plan,
        lambda: _shortened(everyone, draw_rollouts(everyone.spec, 2, plan.seed)[0][0]),
    )  # fmt: skip


def compare_threads(
    bundle: Path, manifest: Manifest, execution: Execution, plan: Plan, draw: Callable[[], Feeds]
) -> Check:
    """The call that ``draw`` gives, on one thread and on several."""
    name = "one thread or several"
    if execution.engine or execution.is_cuda or manifest.dtype == "bfloat16":
        return Check(name, "skipped", "not run by ONNX Runtime on the CPU as it is")
    call, found = draw(), []
    for threads in (1, 3):
        session = open_subject(bundle, manifest, replace(execution, threads=threads), [])
        found.append(flat(*session.run(call)))
        session.close()
    tensor, part = worst_difference(found[0], found[1], plan.allowed)
    return judged(name, "one call on 1 thread and on 3", tensor, part)


def check_padding(everyone: Participants, plan: Plan) -> Check:
    """Rows of other lengths, filled up with this and with that."""
    name = "what stands behind the end of a row"
    if not everyone.manifest.ragged:
        return Check(name, "skipped", "the bundle takes rows of one length: export with --ragged")
    inputs = everyone.sequence(4, _STEPS, plan.seed)
    lengths = np.array([_STEPS, 33, 1, 0], np.int32)
    other = inputs.copy()
    for row, length in enumerate(lengths):
        other[row, length:] = everyone.sequence(1, _STEPS, plan.seed + 1)[0, length:]
    feed = everyone.manifest.inputs[0].name
    first, second = (
        _within(lengths, everyone, *everyone.subject.run({feed: x, LENGTHS: lengths}))
        for x in (inputs, other)
    )
    tensor, part = worst_difference(first, second, plan.allowed)
    return judged(name, "rows of 70, 33, 1 and 0 steps, filled up in two ways", tensor, part)


def check_fork(everyone: Participants, plan: Plan) -> Check:
    """Go on from kept states twice, with something else between: the same bits."""
    if not takes_sequences(everyone):
        return Check(FORK, "skipped", "the model takes no sequence with carried states")
    inputs = everyone.sequence(2, 3 * 16, plan.seed)
    feed = everyone.manifest.inputs[0].name
    calls = [{feed: inputs[:, i * 16 : i * 16 + 16]} for i in range(3)]
    return compare_forks(everyone.subject, calls, "16 steps")


def compare_forks(subject: Runner, calls: Sequence[Feeds], what: str) -> Check:
    """From the states after the first of three ``calls``: the second, the third, the second."""
    start, first, second = calls
    _, kept = subject.run(start)
    before = {key: np.array(value) for key, value in kept.items()}
    once = flat(*subject.run(first, kept))
    subject.run(second, kept)
    again = flat(*subject.run(first, kept))
    changed = [k for k, x in before.items() if not np.array_equal(x, kept[k], equal_nan=True)]
    differing = [n for n in once if not np.array_equal(once[n], again[n], equal_nan=True)]
    if changed:
        return Check(FORK, "failed", f"a call changed the states it was given: {changed[0]}")
    if differing:
        return Check(FORK, "failed", f"the same call gave other numbers: {differing[0]}")
    return Check(FORK, "passed", f"{what} from kept states, twice, with others between: same bits")


def _run_parts(
    everyone: Participants, inputs: Array, lengths: Sequence[int]
) -> tuple[dict[str, Array], Mapping[str, Array]]:
    """Outputs over time, of the last step alone where there are no others, and last states."""
    feed, start = everyone.manifest.inputs[0].name, 0
    states: Mapping[str, Array] | None = None
    parts = []
    for length in lengths:
        outputs, states = everyone.subject.run({feed: inputs[:, start : start + length]}, states)
        parts.append(outputs)
        start += length
    assert states is not None
    if everyone.manifest.logits == "last":
        return dict(parts[-1]), states
    return {n: np.concatenate([p[n] for p in parts], axis=1) for n in parts[0]}, states


def flat(outputs: Mapping[str, Array], states: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs and states, by their names and keys."""
    return {**outputs, **{key: np.asarray(value) for key, value in states.items()}}


def _within(
    lengths: Array,
    everyone: Participants,
    outputs: Mapping[str, Array],
    states: Mapping[str, Array],
) -> dict[str, Array]:  # fmt: skip
    """States, and outputs up to the end of each row: what a head makes of padding is nobody's."""
    if everyone.manifest.logits == "last":
        return flat({n: x[lengths > 0] for n, x in outputs.items()}, states)
    is_step = np.arange(_STEPS) < lengths[:, None]
    return flat({n: x[is_step] for n, x in outputs.items()}, states)


def _shortened(everyone: Participants, call: Feeds) -> Feeds:
    """A call as it is; of a sequence, some of its steps."""
    if not everyone.spec.has_sequence:
        return call
    (name,) = call
    return {name: everyone.sequence(len(call[name]), 40, seed=len(call[name]))}


def random_cut(random: np.random.Generator, steps: int = _STEPS) -> list[int]:
    """Lengths of parts of ``steps`` steps."""
    places = np.sort(random.choice(np.arange(1, steps), random.integers(1, 6), replace=False))
    return [int(n) for n in np.diff([0, *places, steps])]


def short(cut: Sequence[int]) -> str:
    """The lengths of parts, in words."""
    words = ", ".join(map(str, cut[:6]))
    return f"{words}, …" if len(cut) > 6 else words


def judged(name: str, words: str, tensor: str, part: float, where: str = "") -> Check:
    """The check ``name``: ``words`` say what was done, ``part`` how far two results are apart."""
    if not math.isfinite(part):
        return Check(name, "failed", f"{words}: NaN or infinity in {tensor}")
    shown = f"{words}: largest difference {part:.1e} of what rounding explains, in {tensor}"
    return Check(name, "passed" if part <= 1 else "failed", shown + ("" if part <= 1 else where))
