"""The comparison of a model that does not fit into memory: layer by layer, to the same verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from xlstm_export.families.family import Family
from xlstm_export.lowering.cut import Cutter
from xlstm_export.progress import Progress
from xlstm_export.validation.checks.gates import check_gates
from xlstm_export.validation.checks.operators import check_operators
from xlstm_export.validation.checks.plan import Budget, Plan
from xlstm_export.validation.inputs import Rollout
from xlstm_export.validation.location.locate import expected_graph
from xlstm_export.validation.location.reader import SAME, locate_reader_fault
from xlstm_export.validation.participants import Both, Participants, bundle_operators, tell
from xlstm_export.validation.result import Check, Location
from xlstm_export.validation.segments.alone import Alone
from xlstm_export.validation.segments.chain import Chain
from xlstm_export.validation.segments.open import Opener
from xlstm_export.validation.segments.plan import Division, Part
from xlstm_export.validation.tally import TensorResult, middle_of_samples

_SKIPPED = {
    "text, by position": "layer by layer a text is compared as --inputs, not read once more",
    "greedy tokens": "each token needs all layers before the next: it takes --memory for the whole",
    "drift over carried steps": "it takes --memory for the whole model",
}
"""What is not done here, and why."""


@dataclass
class Compared:
    """What was found. The names are of who computed; ``distance`` is the reader's."""

    results: list[TensorResult] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    location: Location | None = None
    distance: float | None = None
    subject: str = ""
    subject_ops: dict[str, str] = field(default_factory=dict)
    reference: str = ""
    baselines: tuple[str, str] = ("", "")
    has_upstream: bool = False


@dataclass(frozen=True)
class Walk:
    """How the parts of ``both`` are gone through, with upstream's ``module`` or without."""

    both: Both
    module: Family | None
    division: Division
    progress: Progress | None
    batch: int = 2
    workers: int = 1

    def through(
        self, rollouts: Sequence[Rollout], look: Callable[[Part, Participants, Chain], None]
    ) -> Chain:
        """Everyone over ``rollouts``, part by part; ``look`` at each when everyone is through.

        Subject and reference see the first ``batch`` rows; ``workers`` compute at once.
        """
        both, parts = self.both, self.division.parts
        with TemporaryDirectory(prefix="xlstm-validate-") as name:
            folder = Path(name)
            opener = Opener(both, self.module, Cutter(both.bundle, both.manifest), folder)
            chain = Chain(both.manifest, rollouts, self.batch, self.workers, folder)
            for number, part in enumerate(parts, 1):
                if self.progress is not None:
                    self.progress("layer by layer", number, len(parts), "parts")
                with opener.open(part) as everyone:
                    everyone = replace(everyone, stream=chain.stream(everyone))
                    chain.run(everyone)
                    look(part, everyone, chain)
            return chain


def compare_in_parts(
    walk: Walk, draw: Callable[[int], Sequence[Rollout]], budget: Budget, seed: int
) -> Compared:
    """Every output and state over the rollouts that ``draw`` yields for a seed, every layer alone.

    Raises BundleError where the graph cannot be taken apart.
    """
    both, found = walk.both, Compared()
    tell(walk.progress, "checking operators")
    operators = bundle_operators(both.bundle, both.manifest, both.execution, both.notes)
    alone = Alone(expected_graph(both), budget, seed, walk.batch)
    reader: list[Location] = []

    def look(part: Part, everyone: Participants, chain: Chain) -> None:
        if not found.subject:
            _name(found, everyone)
            gates = check_gates(replace(everyone, operators=operators), Plan(budget, seed, {}))
            found.checks.append(gates)
        if chain.distance > SAME and not reader:
            location = locate_reader_fault(everyone, chain.first_feeds(everyone))
            reader.extend([location] if location else [])
        found.distance = chain.distance if everyone.oracle is not None else None
        alone.look(part, everyone)

    def sample(number: int) -> list[TensorResult]:
        return walk.through(draw(number), look if number == seed else _nothing).results()

    first = sample(seed)
    # a part that is wrong by itself is no chance
    found.results = first if alone.location else middle_of_samples(
        lambda number: first if number == seed else sample(number), seed, both.notes
    )  # fmt: skip
    found.results += alone.ragged
    checked = check_operators(operators, seed) if operators else []
    found.results += checked
    skipped = (Check(name, "skipped", why) for name, why in _SKIPPED.items())
    found.checks = [*alone.summary(len(walk.division.parts)), *found.checks, *skipped]
    found.location = alone.location or alone.locate_operator(checked)
    found.location = found.location or next(iter(reader), None)
    return found


def _nothing(part: Part, everyone: Participants, chain: Chain) -> None:
    """Of a further sample the errors of the chain are all that counts."""


def _name(found: Compared, everyone: Participants) -> None:
    found.subject, found.subject_ops = everyone.subject.name, everyone.subject.describe()
    found.reference = everyone.runners.reference.name
    found.baselines = (everyone.recurrent.name, everyone.chunkwise.name)
    found.has_upstream = everyone.oracle is not None
