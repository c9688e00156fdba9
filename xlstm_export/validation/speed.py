"""How fast everyone who took part runs here: medians over the same inputs, turn by turn.

One turn is a call of each participant, so that what slows the machine down slows all of them. It is
a look at this machine, and no benchmark: ``bench`` and ``benchmarks/`` measure.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xlstm_export.bundle.manifest import Manifest, read_manifest
from xlstm_export.runtime.open import Execution, open_session
from xlstm_export.runtime.ort import BODIES
from xlstm_export.runtime.session import Runner, Session
from xlstm_export.validation.checks.plan import Plan, takes_sequences
from xlstm_export.validation.inputs import Feeds, draw_rollouts, rollout_inputs
from xlstm_export.validation.participants import Participants

PREFILL = 32
"""Steps of a call from no states."""
_WARM_UP = 8
"""Steps before the single ones."""
_TURNS = 5


@dataclass(frozen=True)
class Speed:
    """Median seconds of one participant: of a ``step`` from carried states, and of a call of many
    steps (``call``; of a model that takes no sequences, of all it takes at once). One row.

    ``turns`` is how many calls the medians are of, the least of both.
    """

    who: str
    name: str
    step: float | None
    call: float
    turns: int


@dataclass(frozen=True)
class Speeds:
    """Everyone's, the bundle first; ``missing`` are those that were not timed, with the reason."""

    measured: tuple[Speed, ...]
    missing: tuple[str, ...]
    call: str
    """What a call is, in words."""


@dataclass
class _Contender:
    who: str
    runner: Runner
    seconds: dict[str, list[float]] = field(default_factory=dict)


def measure_speed(everyone: Participants, plan: Plan, other: Path | None) -> Speeds:
    """Time the bundle, its function bodies, upstream's module and PyTorch, and ``other``.

    By the full budget each may take 5 seconds for each kind of call, else a twentieth of one.
    """
    with ExitStack() as opened:
        contenders, missing = _contenders(everyone, other, opened)
        works = _works(everyone, plan)
        for kind, make in works.items():
            calls = {c.who: make(c.runner) for c in contenders}
            _take_turns(contenders, calls, kind, plan.pick(50, 5000) / 1000)
    return Speeds(
        measured=tuple(_speed(c) for c in contenders),
        missing=tuple(missing),
        call=f"{PREFILL} steps from no states" if "step" in works else "one call, one row",
    )


def _contenders(
    everyone: Participants, other: Path | None, opened: ExitStack
) -> tuple[list[_Contender], list[str]]:
    """Who is timed, the bundle first, and why others are not."""
    found, missing = list[_Contender](), list[str]()

    def add(who: str, bundle: Path, manifest: Manifest, execution: Execution) -> None:
        is_at_hand = bundle == everyone.bundle and execution == everyone.execution
        if manifest.dtype == "bfloat16" and not (execution.is_cuda or execution.engine):
            missing.append(f"{who}: bfloat16 is emulated here")
        elif is_at_hand and manifest.low_bit is None:
            found.append(_Contender(who, everyone.subject))
        else:
            session: Session = opened.enter_context(closing(open_session(bundle, execution)))
            found.append(_Contender(who, session))

    how = everyone.execution
    add("this bundle", everyone.bundle, everyone.manifest, how)
    if how.engine or how.is_cuda:
        add("ONNX Runtime on the CPU", everyone.bundle, everyone.manifest, _on_cpu(how, True))
    if BODIES not in everyone.subject.describe().values():
        add("stock ONNX Runtime", everyone.bundle, everyone.manifest, _on_cpu(how, False))
    if other is not None and other.resolve() != everyone.bundle.resolve():
        add("the other bundle", other, read_manifest(other), replace(how, engine=None))
    if everyone.oracle is not None:
        found.append(_Contender("upstream, as compared", everyone.oracle))
    found.append(_Contender("PyTorch, our own model", everyone.chunkwise))
    return found, missing


def _on_cpu(execution: Execution, native: bool) -> Execution:
    return replace(execution, engine=None, backend="auto", native=native)


def _works(
    everyone: Participants, plan: Plan
) -> dict[str, Callable[[Runner], Callable[[], object]]]:
    """By kind, what makes a call of a participant."""
    if not takes_sequences(everyone):
        feeds = draw_rollouts(everyone.spec, 1, plan.seed)[0][0]
        return {"call": lambda runner: lambda: runner.run(feeds)}
    name = everyone.manifest.inputs[0].name
    inputs = rollout_inputs(everyone.spec, 1, _WARM_UP + PREFILL, plan.seed)
    start, step, many = (
        {name: inputs[:, a:b]}
        for a, b in ((0, _WARM_UP), (_WARM_UP, _WARM_UP + 1), (_WARM_UP, None))
    )
    return {
        "step": lambda runner: _stepping(runner, start, step),
        "call": lambda runner: lambda: runner.run(many),
    }


def _stepping(runner: Runner, start: Feeds, step: Feeds) -> Callable[[], object]:
    """A call of one step, which goes on from the states of the one before."""
    states: Mapping[str, Any] = runner.run(start)[1]

    def call() -> None:
        nonlocal states
        _, states = runner.run(step, states)

    return call


def _take_turns(
    contenders: Sequence[_Contender], calls: Mapping[str, Callable[[], object]], kind: str,
    limit: float,
) -> None:  # fmt: skip
    """Up to ``_TURNS`` calls of each; who has used up ``limit`` seconds leaves out the rest.

    The first call warms up, and counts only where it alone took the limit.
    """
    warm = {c.who: _seconds(calls[c.who]) for c in contenders}
    spent = dict(warm)
    for c in contenders:
        c.seconds[kind] = [warm[c.who]] if warm[c.who] >= limit else []
    for _ in range(_TURNS):
        for c in contenders:
            if spent[c.who] < limit:
                c.seconds[kind].append(_seconds(calls[c.who]))
                spent[c.who] += c.seconds[kind][-1]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _speed(contender: _Contender) -> Speed:
    medians = {kind: statistics.median(taken) for kind, taken in contender.seconds.items()}
    turns = min(len(taken) for taken in contender.seconds.values())
    return Speed(contender.who, contender.runner.name, medians.get("step"), medians["call"], turns)
