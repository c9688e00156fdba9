"""The comparison of a model that does not fit into memory: layer by layer, to the same verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from xlstm_export.runtime.operators import BundleOperators
from xlstm_export.validation.checks.gates import check_gates
from xlstm_export.validation.checks.operators import repeated_operators
from xlstm_export.validation.checks.plan import Plan, allowances
from xlstm_export.validation.inputs import Rollout
from xlstm_export.validation.location.locate import expected_graph
from xlstm_export.validation.location.reader import SAME, locate_reader_fault
from xlstm_export.validation.location.unbounded import locate_unbounded
from xlstm_export.validation.participants import Participants, bundle_operators, tell
from xlstm_export.validation.result import Check, Location
from xlstm_export.validation.samples import Sample
from xlstm_export.validation.segments.alone import Alone
from xlstm_export.validation.segments.chain import Chain
from xlstm_export.validation.segments.further import further_checks, recorded_results
from xlstm_export.validation.segments.walk import Walk
from xlstm_export.validation.tally import Interrupted, TensorResult, middle_of_samples


@dataclass
class Compared:
    """What was found, as far as it came; ``is_compared`` once the first rollout is.

    The names are of who computed; ``distance`` is the reader's.
    """

    results: list[TensorResult] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    location: Location | None = None
    distance: float | None = None
    subject: str = ""
    subject_ops: dict[str, str] = field(default_factory=dict)
    reference: str = ""
    baselines: tuple[str, str] = ("", "")
    has_upstream: bool = False
    is_compared: bool = False
    complete: bool = True


def compare_in_parts(
    walk: Walk, draw: Callable[[int], Sequence[Rollout]], plan: Plan, samples: Sequence[Sample],
    *, is_given: bool,
) -> Compared:  # fmt: skip
    """Every output and state over the rollouts that ``draw`` yields for a seed, every layer alone.

    ``is_given``: they are the same for every seed. ``samples`` were recorded elsewhere. Raises
    BundleError where the graph cannot be taken apart.
    """
    both, seed, found = walk.both, plan.seed, Compared()
    tell(walk.progress, "checking operators")
    operators = bundle_operators(both.bundle, both.manifest, both.execution, both.notes)
    alone = Alone(expected_graph(both), plan.budget, seed, walk.batch)
    reader: list[Location] = []

    def after(everyone: Participants, chain: Chain) -> None:
        if not found.subject:
            _name(found, everyone)
            found.checks.append(check_gates(replace(everyone, operators=operators), plan))
        if everyone.oracle is not None:
            found.distance = chain.distance
            if chain.distance > SAME and not reader:
                location = locate_reader_fault(everyone, chain.first_feed(everyone))
                reader.extend([location] if location else [])

    def sample(number: int) -> list[TensorResult]:
        with walk.through(draw(number)) as chain:
            return chain.results()

    try:
        with walk.through(draw(seed), before=alone.look, after=after) as chain:
            found.results = chain.results()
        found.is_compared = True
        if not (alone.location or is_given):  # a part that is wrong by itself is no chance
            found.results = middle_of_samples(
                lambda number: found.results if number == seed else sample(number), seed, both.notes
            )
        found.results += alone.ragged
        _go_on(found, walk, plan, samples, operators)
    except KeyboardInterrupt as stop:
        if isinstance(stop, Interrupted) and not found.is_compared:
            found.results = stop.results
        if not found.results:
            raise
        found.complete = False
    found.checks = [*alone.summary(len(walk.division.parts)), *found.checks]
    found.location = (
        alone.location
        or alone.locate_operator(found.results)
        or next(iter(reader), None)
        or locate_unbounded(both.checkpoint.spec, found.results)
    )
    return found


def _go_on(
    found: Compared, walk: Walk, plan: Plan, samples: Sequence[Sample],
    operators: Mapping[str, BundleOperators],
) -> None:  # fmt: skip
    """Operators alone, recorded numbers, and what takes longer."""
    found.results += repeated_operators(operators, plan.seed, walk.both.notes)
    found.results += recorded_results(walk, samples)
    checks, results = further_checks(walk, replace(plan, allowed=allowances(found.results)))
    found.checks += checks
    found.results += results


def _name(found: Compared, everyone: Participants) -> None:
    found.subject, found.subject_ops = everyone.subject.name, everyone.subject.describe()
    found.reference = everyone.runners.reference.name
    found.baselines = (everyone.recurrent.name, everyone.chunkwise.name)
    found.has_upstream = everyone.oracle is not None
