"""The tolerance rule on independent samples.

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
from xlstm_export.bundle.manifest import MODEL_FILE
from xlstm_export.families.registry import find_family
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.model.storage import Storage
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.bf16_emulation import emulated_graph
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Array, Runner
from xlstm_export.validation.tally import ratio
from xlstm_export.validation.tolerance import Errors, errors, judge_errors, magnitude

VOTES = 7

Tensors = dict[str, Array]
Shares = dict[str, list[float]]


@dataclass
class Bench:
    """The sessions a bundle is compared with; what they answered is remembered.

    ``exact`` is upstream's module, ``own`` our float64 model, both on the bundle's weights;
    the baselines compute in the bundle's dtype and are held to ``own``.
    """

    exact: Runner
    own: Runner
    baselines: tuple[Runner, Runner]
    dtype: str
    _answers: dict[tuple[int, int, tuple[int, ...]], list[Tensors]] = field(default_factory=dict)

    def broken(self, subject: Runner, inputs: Array, calls: Sequence[int]) -> Shares:
        """Tensors of ``subject`` that break the rule in most votes: error over allowance in each.

        Every session carries its own states through ``calls``, whose errors are pooled.
        """
        return self.broken_by(record(subject, inputs, calls), inputs, calls)

    def broken_by(
        self, got: list[Tensors], inputs: Array, calls: Sequence[int], last_only: bool = False
    ) -> Shares:
        """As ``broken``, for the answers to the last ``len(got)`` of ``calls``.

        ``last_only``: ``got`` has the output of the last step alone.
        """
        sessions = (self.exact, self.own, *self.baselines)
        exact, own, *forms = (
            [
                {**call, "output": call["output"][:, -1:]} if last_only else call
                for call in self._answered(session, inputs, calls)[-len(got) :]
            ]
            for session in sessions
        )
        rows = len(inputs) // VOTES
        shares: Shares = {}
        for name in exact[0]:
            dtype = self.dtype if name == "output" else "float32"
            for vote in range(VOTES):
                part = slice(vote * rows, (vote + 1) * rows)
                judgement = judge_errors(
                    _pooled(got, exact, name, part),
                    [_pooled(form, own, name, part) for form in forms],
                    max(magnitude(call[name][part]) for call in exact),
                    dtype,
                )
                shares.setdefault(name, []).append(round(ratio(judgement), 2))
        return {n: s for n, s in shares.items() if sum(x <= 1 for x in s) <= VOTES // 2}

    def _answered(self, session: Runner, inputs: Array, calls: Sequence[int]) -> list[Tensors]:
        key = (id(session), hash(inputs.tobytes()), tuple(calls))
        if key not in self._answers:
            self._answers[key] = record(session, inputs, calls)
        return self._answers[key]


def open_bench(library: Library, case: ModelCase, dtype: str) -> Bench:
    """The sessions for a ``dtype`` bundle of ``case``."""
    checkpoint, source = library.checkpoint(case), library.source(case)
    spec, weights = checkpoint.spec, checkpoint.weights
    recurrent = ReferenceModel(spec, weights, dtype, dtype, "recurrent")
    return Bench(
        find_family(source).oracle(checkpoint, Storage(dtype)),
        ReferenceModel(spec, weights, dtype, "float64"),
        (recurrent, recurrent.in_form("chunkwise")),
        dtype,
    )


def open_bundle(library: Library, case: ModelCase, options: LoweringOptions) -> OrtSession:
    """The bundle of ``case`` in ONNX Runtime; bfloat16 emulated."""
    bundle = library.bundle(case, options)
    is_bf16 = options.dtype == "bfloat16"
    graphs = {MODEL_FILE: emulated_graph(bundle / MODEL_FILE)} if is_bf16 else None
    return OrtSession(bundle, graphs=graphs, threads=1)


@dataclass(frozen=True)
class InBatches:
    """``session`` fed at most ``size`` rows at a time."""

    session: Runner
    size: int
    name: str = "in batches"

    def run(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None
    ) -> tuple[Tensors, Tensors]:
        """As ``Runner.run``."""
        parts = []
        for start in range(0, len(next(iter(feeds.values()))), self.size):
            rows = slice(start, start + self.size)
            own = None if states is None else {key: x[rows] for key, x in states.items()}
            parts.append(self.session.run({key: x[rows] for key, x in feeds.items()}, own))
        outputs, after = zip(*parts, strict=True)
        return _joined(outputs), _joined(after)


def _joined(parts: Sequence[Mapping[str, Array]]) -> Tensors:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def record(session: Runner, inputs: Array, calls: Sequence[int]) -> list[Tensors]:
    """Output and states of ``session`` after each of ``calls``, carrying its states."""
    recorded: list[Tensors] = []
    states: Mapping[str, Array] | None = None
    name = "input_ids" if inputs.ndim == 2 else "inputs_embeds"
    start = 0
    for steps in calls:
        outputs, states = session.run({name: inputs[:, start : start + steps]}, states)
        (output,) = outputs.values()
        recorded.append({"output": output, **states})
        start += steps
    return recorded


def _pooled(got: list[Tensors], exact: list[Tensors], name: str, rows: slice) -> Errors:
    pairs = zip(got, exact, strict=True)
    return sum((errors(a[name][rows], b[name][rows]) for a, b in pairs), Errors())
