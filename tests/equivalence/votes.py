"""The tolerance rule on independent draws of inputs.

The rule compares the largest rounding errors of two programs. Where one badly conditioned step
(a head output that cancels just before its norm) dominates a sample, that is a throw of dice: an
exact twin of the reference breaks the rule in some percent of such samples, however large they
are. A wrong or imprecise graph breaks it in every one. So the rows of a batch are cut into
``VOTES`` samples, each is judged by the rule as it stands, and most of them must obey it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.model_cases import Library, ModelCase
from xlstm_export.families.registry import find_family
from xlstm_export.lowering.lower import LoweringOptions
from xlstm_export.model.manifest import Manifest
from xlstm_export.model.precision import checkpoint_rounding
from xlstm_export.runtime.bf16_emulation import emulated_graph
from xlstm_export.runtime.ort import MODEL_FILE, OrtSession
from xlstm_export.runtime.reference import ReferenceModel
from xlstm_export.runtime.session import Array, Session
from xlstm_export.validation.compare import Panel, compare_rollout, share

VOTES = 5

States = dict[str, Array]
Call = tuple[Array, States]


@dataclass
class Contest:
    """A bundle and the other sessions of a ``Panel``, whose answers are remembered."""

    subject: OrtSession
    references: tuple[Session, ...]
    _answers: dict[tuple[int, int, tuple[int, ...]], list[Call]] = field(default_factory=dict)

    @property
    def manifest(self) -> Manifest:
        """That of the bundle."""
        return self.subject.manifest

    def unruly(self, inputs: Array, calls: Sequence[int], batch: int) -> dict[str, list[float]]:
        """Tensors that break the rule in most votes, with their error over allowance in each.

        The bundle sees ``batch`` rows at a time; every session carries its states through
        ``calls``. Rows of ``inputs`` must be a multiple of VOTES * batch.
        """
        rows = len(inputs) // VOTES
        runs = [_record(InBatches(self.subject, batch), inputs, calls)]
        runs += [self._remembered(session, inputs, calls) for session in self.references]
        shares: dict[str, list[float]] = {}
        for vote in range(VOTES):
            part = slice(vote * rows, (vote + 1) * rows)
            panel = Panel(*(_Replay(run, part) for run in runs))
            for result in compare_rollout(panel, inputs[part], calls, self.manifest):
                shares.setdefault(result.name, []).append(round(share(result.judgement), 2))
        return {n: s for n, s in shares.items() if sum(x <= 1 for x in s) <= VOTES // 2}

    def _remembered(self, session: Session, inputs: Array, calls: Sequence[int]) -> list[Call]:
        key = (id(session), hash(inputs.tobytes()), tuple(calls))
        if key not in self._answers:
            self._answers[key] = _record(session, inputs, calls)
        return self._answers[key]


def open_contest(library: Library, case: ModelCase, options: LoweringOptions) -> Contest:
    """The bundle of ``case`` against upstream's module in float64 on the bundle's weights."""
    checkpoint, source = library.checkpoint(case), library.source(case)
    spec, weights, dtype = checkpoint.spec, checkpoint.weights, options.dtype
    return Contest(
        open_bundle(library, case, options),
        (
            find_family(source).oracle(source, checkpoint_rounding(weights, dtype)),
            ReferenceModel(spec, weights, dtype, "float64"),
            ReferenceModel(spec, weights, dtype, dtype, "recurrent"),
            ReferenceModel(spec, weights, dtype, dtype, "chunkwise"),
        ),
    )


def open_bundle(library: Library, case: ModelCase, options: LoweringOptions) -> OrtSession:
    """The bundle of ``case`` in ONNX Runtime; bfloat16 emulated."""
    bundle = library.bundle(case, options)
    graph = emulated_graph(bundle / MODEL_FILE) if options.dtype == "bfloat16" else None
    return OrtSession(bundle, graph=graph, threads=1)


@dataclass(frozen=True)
class InBatches:
    """``session`` fed at most ``size`` rows at a time."""

    session: Session
    size: int
    name: str = "in batches"

    def run(self, inputs: Array, states: Mapping[str, Array] | None) -> Call:
        """As ``Session.run``."""
        parts = []
        for start in range(0, len(inputs), self.size):
            rows = slice(start, start + self.size)
            own = None if states is None else {key: x[rows] for key, x in states.items()}
            parts.append(self.session.run(inputs[rows], own))
        return np.concatenate([output for output, _ in parts]), {
            key: np.concatenate([state[key] for _, state in parts]) for key in parts[0][1]
        }


class _Replay:
    """What a session answered, for some of its rows, call by call."""

    name = "replay"

    def __init__(self, calls: list[Call], rows: slice) -> None:
        self._calls = iter(calls)
        self._rows = rows

    def run(self, inputs: Array, states: Mapping[str, Array] | None) -> Call:
        """The next call's answer; the arguments are those it was recorded with."""
        output, after = next(self._calls)
        return output[self._rows], {key: x[self._rows] for key, x in after.items()}


def _record(session: Session, inputs: Array, calls: Sequence[int]) -> list[Call]:
    recorded: list[Call] = []
    states: States | None = None
    start = 0
    for steps in calls:
        recorded.append(session.run(inputs[:, start : start + steps], states))
        states = recorded[-1][1]
        start += steps
    return recorded
