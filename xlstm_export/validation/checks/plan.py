"""How much the checks do, and what they do it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from xlstm_export.errors import OptionError
from xlstm_export.runtime.session import Array
from xlstm_export.validation.participants import Participants
from xlstm_export.validation.tally import TensorResult
from xlstm_export.validation.tolerance import errors

Budget = Literal["fast", "full"]
TWO = 2.0
"""Two computations of one bundle may each be off by what the rule allows, to either side."""


@dataclass(frozen=True)
class Plan:
    """``budget`` and ``seed`` of the checks; ``text`` are token ids [T] to predict, where given.

    ``allowed`` is what the rule allowed for each output and state in the rollout.
    """

    budget: Budget
    seed: int
    allowed: Mapping[str, float]
    text: Array | None = None

    def pick(self, fast: int, full: int) -> int:
        """A number by the budget."""
        return full if self.budget == "full" else fast


def check_budget(budget: str) -> None:
    """Raise OptionError unless ``budget`` is one."""
    if budget not in get_args(Budget):
        raise OptionError("budget", f"{budget} is not one of {', '.join(get_args(Budget))}")


def allowances(results: Sequence[TensorResult]) -> dict[str, float]:
    """The largest error that the rule allows for each output and state, by name."""
    return {
        result.name: result.judgement.max_allowed
        for result in results
        if result.kind in ("output", "state") and not result.name.startswith("ragged ")
    }


def worst_difference(
    first: Mapping[str, Array], second: Mapping[str, Array], allowed: Mapping[str, float]
) -> tuple[str, float]:
    """Where two computations of one thing differ most, and how much, in twice the allowance.

    Above 1 they differ by more than rounding explains.
    """
    parts = {
        name: errors(first[name], second[name]).largest / (TWO * allowed[name] or 1.0)
        for name in first
        if name in allowed
    }
    return max(parts.items(), key=lambda pair: pair[1])


def takes_sequences(everyone: Participants) -> bool:
    """Whether the bundle takes sequences of any length, and carries its states."""
    return everyone.spec.has_sequence and bool(everyone.manifest.states)
