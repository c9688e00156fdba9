"""Each part of a model by itself: on exact inputs by the rule, and against itself.

The chain shows what errors add up to; here each layer and operator gets the numbers of our float64
model, so that an error is where it arises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xlstm_export.model.layer import result_name
from xlstm_export.model.spec import HIDDEN_OUT
from xlstm_export.validation.checks.invariance import (
    check_batch,
    check_fork,
    check_padding,
    check_splits,
    check_threads,
)
from xlstm_export.validation.checks.plan import Budget, Plan
from xlstm_export.validation.checks.rollout import compare_ragged
from xlstm_export.validation.location.locate import (
    eps_inside,
    locate_in,
    locate_operator,
    shortened,
)
from xlstm_export.validation.location.parts import Parts, judge_parts
from xlstm_export.validation.participants import Participants
from xlstm_export.validation.result import Check, Location
from xlstm_export.validation.segments.plan import Part
from xlstm_export.validation.tally import TensorResult, ratio

_CHECKS: tuple[Callable[[Participants, Plan], Check], ...] = (
    check_splits, check_batch, check_padding, check_threads, check_fork,
)  # fmt: skip
_ALONE = "each layer alone"


@dataclass
class Alone:
    """What was seen of the parts so far. ``expected`` is the graph that the checkpoint gives."""

    expected: Any
    budget: Budget
    seed: int
    batch: int
    found: list[Location] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    ragged: list[TensorResult] = field(default_factory=list)
    tensors: int = 0
    worst: tuple[float, str] = (0.0, "")
    checks: dict[str, list[tuple[str, Check]]] = field(default_factory=dict)
    inside: dict[str, bool] = field(default_factory=dict)
    taps: list[str] = field(default_factory=list)
    _kinds: set[Any] = field(default_factory=set)

    def look(self, part: Part, everyone: Participants) -> None:
        """At one part."""
        try:
            parts = judge_parts(everyone, self.batch, self.seed)
        except Exception as error:  # a broken graph fails in many ways: the chain says what it is
            self.unseen.append(f"{part.name}: {error}")
            return
        for name, result in parts.judged.items():
            self.tensors += 1
            self.worst = max(self.worst, (ratio(result.judgement), name))
        try:
            located = locate_in(parts, self.expected)
            self.found += [located] if located else []
        except Exception as error:  # what was judged stands without
            everyone.notes.append(f"{part.name}: where it breaks was not found: {error}")
        self.taps += [tap.name for tap in parts.tapped.taps]
        self.inside |= eps_inside(parts.tapped.model, self.expected)
        manifest = everyone.manifest
        if manifest.ragged:
            inputs = everyone.sequence(self.batch, 80, self.seed)
            found = compare_ragged(everyone.runners, inputs, manifest)
            self.ragged += [_named(result, part) for result in found]
        kind = tuple(layer for _, layer in part.spec.layers)
        if self.budget == "full" or kind not in self._kinds:
            self._kinds.add(kind)
            plan = Plan(self.budget, self.seed, _allowances(parts, everyone))
            for check in _CHECKS:
                seen = check(everyone, plan)
                self.checks.setdefault(seen.name, []).append((part.name, seen))

    def summary(self, count: int) -> list[Check]:
        """The checks of all ``count`` parts."""
        part, name = self.worst
        words = (
            f"{self.tensors} results of layers, operands of operators and states, each on exact "
            f"inputs: at most {part:.2g} of what the rule allows, {name}"
        )
        alone = Check(_ALONE, "passed" if part <= 1 else "failed", words)
        if self.unseen and part <= 1:
            alone = Check(_ALONE, "skipped", f"cannot be cut: {self.unseen[0]}")
        return [alone, *(_joined(seen, count) for seen in self.checks.values())]

    @property
    def location(self) -> Location | None:
        """The first fault, and the others beside it."""
        if not self.found:
            return None
        first, *rest = self.found
        more = [name for r in rest for name in (f"{r.layer}: {r.tensor}", *r.others)]
        return replace(first, others=shortened([*first.others, *more]))

    def locate_operator(self, results: Sequence[TensorResult]) -> Location | None:
        """Of an operator that broke the rule in a check of its own."""
        return locate_operator(self.taps, results, self.inside)


def _allowances(parts: Parts, everyone: Participants) -> dict[str, float]:
    """What the rule allows the part's output and states on exact inputs, by name."""
    allowed = {name: result.judgement.max_allowed for name, result in parts.judged.items()}
    output = everyone.manifest.outputs[0].name
    return {output: allowed.get(result_name(*everyone.spec.layers[-1]), math.inf), **allowed}


def _named(result: TensorResult, part: Part) -> TensorResult:
    """A result of rows of different lengths, by the layer where the part's output has no name."""
    is_hidden = result.name == f"ragged {HIDDEN_OUT}"
    return replace(result, name=f"ragged {part.spec.layers[-1][0]}") if is_hidden else result


def _joined(seen: list[tuple[str, Check]], count: int) -> Check:
    """One check of several parts: what failed first, else what was seen of the last that has it."""
    ran = [(name, check) for name, check in seen if check.outcome != "skipped"]
    if not ran:
        return seen[0][1]
    failed = [(name, check) for name, check in ran if not check.ok]
    name, shown = failed[0] if failed else ran[-1]
    parts = f"{len(ran)} of {count} parts, each by itself"
    return replace(shown, reason=f"{parts}; {name}: {shown.reason}")
