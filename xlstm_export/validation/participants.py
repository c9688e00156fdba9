"""Who takes part in a comparison: the bundle, upstream's module, and our model in torch."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from xlstm_export.bundle.calibration import read_calibration
from xlstm_export.bundle.checksum import is_as_written
from xlstm_export.bundle.manifest import CONTINUE_FILE, MODEL_FILE, Manifest
from xlstm_export.checkpoint.source import Checkpoint, Source, fingerprint
from xlstm_export.errors import BackendUnavailableError, BundleError
from xlstm_export.families.family import Family
from xlstm_export.families.oracle import Oracle
from xlstm_export.model.numerics import with_numerics
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import state_specs
from xlstm_export.model.storage import Storage
from xlstm_export.progress import Progress
from xlstm_export.reference.model import Form, ReferenceModel
from xlstm_export.reference.threads import Sharing, is_small
from xlstm_export.runtime.open import Execution, open_session
from xlstm_export.runtime.operators import BundleOperators
from xlstm_export.runtime.ort import BODIES, OrtSession, cpu_threads
from xlstm_export.runtime.session import MOST_STEPS, Array, Session
from xlstm_export.validation.checks.rollout import Runners
from xlstm_export.validation.inputs import rollout_inputs
from xlstm_export.validation.pieces import InPieces

_EMULATED = (
    "bfloat16 emulated: each bfloat16 operation ran in float32 on rounded operands, and its "
    "result was rounded to bfloat16"
)
_BOTH_WAYS = (
    "each operator alone was also checked by its function body, which runs where there is no "
    "native library"
)
WIDENED = (
    "the weights are judged as the bundle holds them: what they are in 8 or 4 bits, upstream's "
    "module was given. In this comparison they were made wide before they were multiplied by; "
    "ONNX Runtime's low-bit products also round activations to 8 bits"
)
WHOLE = "an engine is compared as a whole: its operators cannot be run one by one"
_IN_PIECES = (
    "the engine is built for calls of at most {steps} steps: longer ones were cut, and it went on "
    "from the states of each piece"
)
CHANGED = "the files of the bundle are not those that export wrote"
"""Notes of both comparisons, with a checkpoint and with a network of one's own."""


@dataclass(frozen=True)
class Both:
    """A bundle and its checkpoint, read, and nothing of their weights loaded.

    ``checkpoint`` is as the bundle computes, ``as_upstream`` as upstream rounds it, ``storage`` how
    the bundle keeps numbers. ``notes`` are of the report.
    """

    bundle: Path
    manifest: Manifest
    execution: Execution
    storage: Storage
    checkpoint: Checkpoint
    as_upstream: Checkpoint
    notes: list[str]


@dataclass(frozen=True)
class Participants:
    """Who takes part, and what they are made from.

    ``checkpoint`` is as the bundle computes, ``as_upstream`` as upstream rounds it. ``operators``
    compute single operators, by the ending of the results' names. ``notes`` are of the report. Of
    a part of a model, ``stream`` [rows, T, D] is what comes to it, exact.
    """

    bundle: Path
    manifest: Manifest
    execution: Execution
    storage: Storage
    checkpoint: Checkpoint
    as_upstream: Checkpoint
    subject: Session
    oracle: Oracle | None
    float64: ReferenceModel
    recurrent: ReferenceModel
    chunkwise: ReferenceModel
    operators: dict[str, BundleOperators]
    notes: list[str]
    stream: Array | None = None

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        return self.checkpoint.spec

    @property
    def runners(self) -> Runners:
        """As a rollout takes them; without upstream our float64 model is the reference."""
        return Runners(
            self.subject, self.oracle or self.float64, self.float64, self.recurrent, self.chunkwise
        )

    def sequence(self, rows: int, steps: int, seed: int) -> Array:
        """Inputs [rows, steps, ...] of a model of sequences: drawn, or of a part what comes to it,
        from another step on for another ``seed``.
        """
        if self.stream is None:
            return rollout_inputs(self.spec, rows, steps, seed)
        own_rows, length = self.stream.shape[:2]
        times = (seed * steps + np.arange(steps)) % length
        found: Array = self.stream[(np.arange(rows) % own_rows)[:, None], times]
        return found


def read_both(
    bundle: Path, manifest: Manifest, digest: str, source: Source, module: Family,
    execution: Execution, progress: Progress | None,
) -> Both:  # fmt: skip
    """Read bundle and source. Raises BundleError where they are not one model."""
    tell(progress, "reading the checkpoint")
    as_upstream = module.read(source)
    checkpoint = replace(as_upstream, spec=with_numerics(as_upstream.spec, manifest.numerics))
    _check_same_model(bundle, manifest, source, checkpoint.spec)
    notes = list(checkpoint.notes)
    if is_as_written(bundle, manifest, digest) is False:
        notes.append(CHANGED)
    storage = Storage.of_bundle(manifest, read_calibration(bundle, manifest.low_bit))
    if execution.threads is None and is_small(checkpoint.parameters):
        execution = replace(execution, threads=1)  # one each, as the references have
    return Both(bundle, manifest, execution, storage, checkpoint, as_upstream, notes)


def gather(both: Both, module: Family, upstream: bool, progress: Progress | None) -> Participants:
    """Load everyone, whole."""
    manifest, checkpoint, storage, notes = both.manifest, both.checkpoint, both.storage, both.notes
    spec, weights = checkpoint.spec, checkpoint.weights
    tell(progress, "loading the references")
    with ThreadPoolExecutor(1) as beside:  # upstream's imports take as long as reading the weights
        arguments = (module, checkpoint, storage, notes)
        loading = beside.submit(find_oracle, *arguments) if upstream else None
        float64 = ReferenceModel(spec, weights, storage, "float64", _exact_form(checkpoint))
        recurrent = ReferenceModel(spec, weights, storage, storage.dtype)
    oracle = loading.result() if loading else None
    tell(progress, "opening the bundle")
    subject = open_subject(both.bundle, manifest, both.execution, notes)
    operators = bundle_operators(both.bundle, manifest, both.execution, notes)
    return Participants(
        both.bundle, manifest, both.execution, storage, checkpoint, both.as_upstream, subject,
        oracle, float64, recurrent, recurrent.in_form("chunkwise"), operators, notes,
    )  # fmt: skip


def is_of(manifest: Manifest, checkpoint: Checkpoint) -> bool:
    """Whether a bundle was made from the files that were read."""
    return fingerprint(checkpoint) == manifest.source.sha256


def share_threads(checkpoint: Checkpoint, threads: int | None) -> Sharing:
    """How those who take part share the processor: as many at once as can, and of a large model
    each with the threads that are over.

    Threads wait for each other after every product and sum. In a small model they do so longer
    than they compute, and one alone takes a single thread.
    """
    threads = threads or cpu_threads()
    workers = min(threads, len(fields(Runners)))
    if is_small(checkpoint.parameters):
        return Sharing(1, workers, 1)
    return Sharing(threads, workers, math.ceil(threads / workers))


def _exact_form(checkpoint: Checkpoint) -> Form:
    """That of our float64 model: step by step a large one would take as long as all the rest."""
    return "recurrent" if is_small(checkpoint.parameters) else "chunkwise"


def tell(progress: Progress | None, what: str) -> None:
    """Say ``what`` is going on, where somebody listens."""
    if progress is not None:
        progress(what, 0, 0)


def bundle_operators(
    bundle: Path, manifest: Manifest, execution: Execution, notes: list[str]
) -> dict[str, BundleOperators]:
    """Who computes single operators, by the ending of the results' names; nobody, of an engine."""
    if execution.engine:
        return {}

    def made(native: bool) -> BundleOperators:
        return BundleOperators(
            bundle, manifest, threads=execution.threads, native=native, cuda=execution.is_cuda
        )

    runners = {"": made(execution.native)}
    if BODIES not in runners[""].describe().values():
        runners[" by body"] = made(False)
        notes.append(_BOTH_WAYS)
    return runners


def _check_same_model(bundle: Path, manifest: Manifest, source: Source, spec: ModelSpec) -> None:
    states = [(s.key, s.shape) for s in state_specs(spec)]
    ends = (manifest.outputs[0].name, manifest.outputs[0].shape[-1])
    is_same = states == [(s.key, s.shape) for s in manifest.states]
    if not is_same or ends != (spec.outputs[0].name, spec.outputs[0].shape[-1]):
        raise BundleError(
            f"{bundle}: its states or outputs are not those of {source.path}; "
            "give the source the bundle was made from"
        )


def find_oracle(
    module: Family, checkpoint: Checkpoint, storage: Storage, notes: list[str],
    part: ModelSpec | None = None,
) -> Oracle | None:  # fmt: skip
    """Upstream's module, or ``part`` of it; None where it is missing, as ``notes`` then say."""
    try:
        return module.oracle(checkpoint, storage, part)
    except BackendUnavailableError as error:
        notes.append(str(error))
        return None


def open_subject(
    bundle: Path, manifest: Manifest, execution: Execution, notes: list[str]
) -> Session:
    """What is judged: as ``execution`` says; on the CPU bfloat16 runs by a widened copy, and
    weights in few bits are made wide, as ``notes`` then say.
    """
    if execution.engine:
        notes.append(WHOLE)
        session = open_session(bundle, execution)
        if session.most_steps >= MOST_STEPS or not (manifest.takes_states and manifest.states):
            return session
        notes.append(_IN_PIECES.format(steps=session.most_steps))
        return InPieces(session)
    is_as_it_runs = manifest.dtype != "bfloat16" and manifest.low_bit is None
    if execution.is_cuda or is_as_it_runs:
        return open_session(bundle, execution)
    # its graph library takes half a second to load
    from xlstm_export.runtime.bf16_emulation import emulated_graph
    from xlstm_export.runtime.widening import exact_graph

    is_emulated = manifest.dtype == "bfloat16"
    files = (MODEL_FILE,) if manifest.takes_states else (MODEL_FILE, CONTINUE_FILE)
    changed = {
        file: emulated_graph(bundle / file) if is_emulated
        else exact_graph(bundle / file, manifest.low_bit)
        for file in files
    }  # fmt: skip
    graphs = {file: graph for file, graph in changed.items() if graph is not None}
    widened = OrtSession(
        bundle, graphs=graphs, threads=execution.threads, native=execution.native,
        wide=manifest.low_bit is not None,
    )  # fmt: skip
    widened.name += " (emulated)" if is_emulated else ""
    notes += [_EMULATED] if is_emulated else []
    notes += [WIDENED] if manifest.low_bit is not None else []
    return widened
