"""A bundle against the module it came from: who takes part, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from xlstm_export.bundle.checksum import bundle_sha256, is_as_written, manifest_sha256
from xlstm_export.bundle.manifest import CONTINUE_FILE, MODEL_FILE, Manifest, read_manifest
from xlstm_export.checkpoint.source import Checkpoint, Source, fingerprint
from xlstm_export.environment import versions
from xlstm_export.errors import BackendUnavailableError, BundleError
from xlstm_export.families.family import Family
from xlstm_export.families.oracle import Oracle
from xlstm_export.model.numerics import rounds, with_numerics
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import state_specs
from xlstm_export.model.storage import Storage
from xlstm_export.progress import Progress
from xlstm_export.quiet import quiet
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.reference.threads import torch_threads
from xlstm_export.runtime.open import Execution, open_session
from xlstm_export.runtime.operators import BundleOperators
from xlstm_export.runtime.ort import BODIES, OrtSession, cpu_threads
from xlstm_export.runtime.session import Session
from xlstm_export.validation.checks.numerics import errors_of_both
from xlstm_export.validation.checks.operators import check_operators
from xlstm_export.validation.checks.rollout import (
    BASELINE_ROWS,
    Runners,
    compare_ragged,
    compare_rollout,
    relative_distance,
)
from xlstm_export.validation.checks.samples import compare_samples
from xlstm_export.validation.inputs import (
    ROLLOUT,
    Feeds,
    draw_rollouts,
    in_words,
    rollout_inputs,
)
from xlstm_export.validation.result import Report, decide
from xlstm_export.validation.samples import Sample, read_samples
from xlstm_export.validation.tally import TensorResult, ratio

_EMULATED = (
    "bfloat16 emulated: each bfloat16 operation ran in float32 on rounded operands, and its "
    "result was rounded to bfloat16"
)
_BOTH_WAYS = (
    "each operator alone was also checked by its function body, which runs where there is no "
    "native library"
)
WHOLE = "an engine is compared as a whole: its operators cannot be run one by one"
_REPEATED = (
    "a tensor broke the rule on the first sample of inputs: three samples were run, and of each "
    "tensor the middle result counts"
)
WIDENED = (
    "the weights are judged as the bundle holds them: what they are in 8 or 4 bits, upstream's "
    "module was given. In this comparison they were made wide before they were multiplied by; "
    "ONNX Runtime's low-bit products also round activations to 8 bits"
)
CHANGED = "the files of the bundle are not those that export wrote"
"""Notes of both comparisons, with a checkpoint and with a network of one's own."""
_READER_STEPS = 16
SMALL = 20_000_000
"""Parameters up to which a step's products are too short for several threads."""


def validate_bundle(
    bundle: Path,
    source: Source,
    module: Family,
    execution: Execution,
    *,
    upstream: bool,
    batch: int,
    seed: int,
    samples: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run ``bundle`` beside the upstream module of ``source``; judge every tensor.

    Raises BundleError when the two have different states or vocabularies, and when the bundle
    was replaced meanwhile, InputError where ``samples`` are none of it.
    """
    recorded = read_samples(samples, read_manifest(bundle)) if samples else []
    with quiet():
        return _validate(
            bundle, source, module, execution, upstream, batch, seed, recorded, progress
        )


def _validate(
    bundle: Path, source: Source, module: Family, execution: Execution, upstream: bool, batch: int,
    seed: int, recorded: Sequence[Sample], progress: Progress | None,
) -> Report:  # fmt: skip
    digest, manifest = bundle_sha256(bundle), read_manifest(bundle)
    _tell(progress, "reading the checkpoint")
    as_upstream = module.read(source)
    checkpoint = replace(as_upstream, spec=with_numerics(as_upstream.spec, manifest.numerics))
    _check_same_model(bundle, manifest, source, checkpoint.spec)
    notes = list(checkpoint.notes)
    notes += [CHANGED] if is_as_written(bundle, manifest, digest) is False else []
    _tell(progress, "loading the float64 reference")
    storage = Storage.of_bundle(manifest, {})
    float64 = ReferenceModel(checkpoint.spec, checkpoint.weights, storage, "float64")
    _tell(progress, "loading the upstream module")
    oracle = _oracle(module, checkpoint, storage, notes) if upstream else None
    _tell(progress, "opening the bundle")
    subject = open_subject(bundle, manifest, execution, notes)
    baselines = _baselines(checkpoint, storage)
    runners = Runners(subject, oracle or float64, float64, *baselines)
    operators = bundle_operators(bundle, manifest, execution, notes)
    torch, workers = _share_threads(checkpoint, execution.threads)

    def sample(seed: int) -> list[TensorResult]:
        drawn = draw_rollouts(checkpoint.spec, batch + BASELINE_ROWS, seed)
        results = compare_rollout(runners, drawn, batch, manifest, workers, progress)
        if manifest.ragged:
            inputs = rollout_inputs(checkpoint.spec, batch, sum(ROLLOUT), seed)
            results += compare_ragged(runners, inputs, manifest)
        _tell(progress, "checking operators")
        return results + (check_operators(operators, seed) if operators else [])

    with torch_threads(torch):
        results = middle_of_samples(sample, seed, notes)
        results += compare_samples(subject, float64, baselines, recorded, manifest, notes)
        probe = _probe(checkpoint.spec, batch, seed)
        distance = relative_distance(float64, oracle, probe) if oracle else None
        if oracle is not None and rounds(as_upstream.spec):
            notes.append(_on_numerics(module, as_upstream, subject, manifest, probe))
    if bundle_sha256(bundle) != digest:
        raise BundleError(f"{bundle}: was replaced while it was compared; validate it again")
    return Report(
        verdict=decide(results, oracle is not None),
        bundle=str(bundle),
        bundle_sha256=digest,
        manifest_sha256=manifest_sha256(bundle),
        source=str(source.path),
        source_matches_bundle=fingerprint(checkpoint) == manifest.source.sha256,
        subject=subject.name,
        subject_ops=subject.describe(),
        reference=runners.reference.name,
        baselines=(baselines[0].name, baselines[1].name),
        reader_distance=distance,
        batch=batch,
        fed=in_words(draw_rollouts(checkpoint.spec, batch, seed)),
        seed=seed,
        notes=tuple(notes),
        versions=versions(),
        results=tuple(results),
    )


def _share_threads(checkpoint: Checkpoint, threads: int | None) -> tuple[int | None, int]:
    """Threads of torch (None: as many as it has), and how many runners compute side by side.

    In a small model torch's threads wait for each other longer than they compute: there each
    runner takes one thread, and several run at once.
    """
    parameters = sum(math.prod(weight.shape) for weight in checkpoint.weights.values())
    if parameters > SMALL:
        return threads, 1
    return 1, threads or cpu_threads()


def middle_of_samples(
    sample: Callable[[int], list[TensorResult]], seed: int, notes: list[str]
) -> list[TensorResult]:
    """Results of ``sample(seed)``; where one breaks the rule, the middle one of three samples.

    A wrong bundle breaks the rule on every sample. A right one may on a single sample, where one
    badly conditioned step dominates the largest error of both sides; that is chance.
    """
    first = sample(seed)
    if all(result.judgement.ok for result in first):
        return first
    notes.append(_REPEATED)
    samples = (first, sample(seed + 1), sample(seed + 2))
    return [
        sorted(same, key=lambda result: ratio(result.judgement))[1]
        for same in zip(*samples, strict=True)
    ]


def _probe(spec: ModelSpec, batch: int, seed: int) -> Feeds:
    """One call, for the distance of two float64 models."""
    if spec.has_sequence:
        return {spec.inputs[0].name: rollout_inputs(spec, batch, _READER_STEPS, seed)}
    return draw_rollouts(spec, batch, seed)[0][0]


def _tell(progress: Progress | None, what: str) -> None:
    if progress is not None:
        progress(what, 0, 0)


def _check_same_model(bundle: Path, manifest: Manifest, source: Source, spec: ModelSpec) -> None:
    states = [(s.key, s.shape) for s in state_specs(spec)]
    ends = (manifest.outputs[0].name, manifest.outputs[0].shape[-1])
    is_same = states == [(s.key, s.shape) for s in manifest.states]
    if not is_same or ends != (spec.outputs[0].name, spec.outputs[0].shape[-1]):
        raise BundleError(
            f"{bundle}: its states or outputs are not those of {source.path}; "
            "give the source the bundle was made from"
        )


def _oracle(
    module: Family, checkpoint: Checkpoint, storage: Storage, notes: list[str]
) -> Oracle | None:
    try:
        return module.oracle(checkpoint, storage)
    except BackendUnavailableError as error:
        notes.append(str(error))
        return None


def _on_numerics(
    module: Family, checkpoint: Checkpoint, subject: Session, manifest: Manifest, feeds: Feeds
) -> str:
    rounding = module.oracle(checkpoint, Storage.of_bundle(manifest, {}))
    return errors_of_both(subject, manifest, rounding, checkpoint, feeds)


def _baselines(checkpoint: Checkpoint, storage: Storage) -> tuple[ReferenceModel, ReferenceModel]:
    """Torch in the bundle's precision: recurrent, and chunkwise."""
    recurrent = ReferenceModel(checkpoint.spec, checkpoint.weights, storage, storage.dtype)
    return recurrent, recurrent.in_form("chunkwise")


def open_subject(
    bundle: Path, manifest: Manifest, execution: Execution, notes: list[str]
) -> Session:
    """What ``execution`` says; on the CPU a bfloat16 bundle runs by a widened copy, as noted."""
    if execution.engine:
        notes.append(WHOLE)
    is_as_it_runs = manifest.dtype != "bfloat16" and manifest.low_bit is None
    if execution.engine or execution.is_cuda or is_as_it_runs:
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
    session = OrtSession(
        bundle, graphs=graphs, threads=execution.threads, native=execution.native,
        wide=manifest.low_bit is not None,
    )  # fmt: skip
    session.name += " (emulated)" if is_emulated else ""
    notes += [_EMULATED] if is_emulated else []
    notes += [WIDENED] if manifest.low_bit is not None else []
    return session


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
