"""A bundle against the module it came from: who takes part, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from xlstm_export.environment import versions
from xlstm_export.errors import BackendUnavailableError, BundleError
from xlstm_export.families.registry import Family
from xlstm_export.families.source import Checkpoint, Source, fingerprint
from xlstm_export.model.checksum import bundle_sha256
from xlstm_export.model.manifest import MODEL_FILE, Manifest, read_manifest
from xlstm_export.model.precision import checkpoint_rounding
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import state_specs
from xlstm_export.runtime.bf16_emulation import emulated_graph
from xlstm_export.runtime.open import open_session
from xlstm_export.runtime.operators import BundleOperators
from xlstm_export.runtime.ort import BODIES, OrtSession
from xlstm_export.runtime.reference import ReferenceModel
from xlstm_export.runtime.session import Array, BundleSession, Session
from xlstm_export.validation.compare import (
    ROLLOUT,
    WITNESSES,
    Panel,
    TensorResult,
    compare_ragged,
    compare_rollout,
    relative_distance,
    share,
)
from xlstm_export.validation.operators import check_operators
from xlstm_export.validation.report import Report, decide

Progress = Callable[[str, int, int], None]

_EMULATED = (
    "bfloat16 emulated: each bfloat16 operation ran in float32 on rounded operands, and its "
    "result was rounded to bfloat16"
)
_BOTH_WAYS = (
    "each operator alone was also checked by its function body, which runs where there is no "
    "native library"
)
_WHOLE = "an engine is compared as a whole: its operators cannot be run one by one"
_REPEATED = (
    "a tensor broke the rule on the first sample of inputs: three samples were run, and of each "
    "tensor the middle result counts"
)
_READER_STEPS = 16


def validate_bundle(
    bundle: Path,
    source: Source,
    module: Family,
    *,
    upstream: bool,
    native: bool,
    engine: str | None = None,
    batch: int,
    seed: int,
    progress: Progress | None = None,
) -> Report:
    """Run ``bundle`` or ``engine`` beside the upstream module of ``source``; judge every tensor.

    Raises BundleError when the two have different states or vocabularies, and when the bundle
    was replaced meanwhile.
    """
    digest = bundle_sha256(bundle)
    manifest = read_manifest(bundle)
    checkpoint = module.read(source)
    _check_same_model(bundle, manifest, source, checkpoint.spec)
    notes: list[str] = []
    if manifest.sha256 and manifest.sha256 != digest:
        notes.append("the files of the bundle are not those that export wrote")
    own = ReferenceModel(checkpoint.spec, checkpoint.weights, manifest.dtype, "float64")
    oracle = _oracle(module, source, checkpoint, manifest.dtype, notes) if upstream else None
    subject = _subject(bundle, manifest, engine, native, notes)
    panel = Panel(subject, oracle or own, own, *_yardsticks(checkpoint, manifest.dtype))
    operators = {} if engine else _operators(bundle, manifest, native, notes)

    def sample(seed: int) -> list[TensorResult]:
        inputs = rollout_inputs(checkpoint.spec, batch + WITNESSES, sum(ROLLOUT), seed)
        results = compare_rollout(panel, inputs, batch, ROLLOUT, manifest, progress)
        if manifest.ragged:
            results += compare_ragged(panel, subject.run, inputs[:batch], manifest)
        return results + (check_operators(operators, seed) if operators else [])

    results = middle_of_samples(sample, seed, notes)
    probe = rollout_inputs(checkpoint.spec, batch, _READER_STEPS, seed)
    if bundle_sha256(bundle) != digest:
        raise BundleError(f"{bundle}: was replaced while it was compared; validate it again")
    return Report(
        verdict=decide(results, oracle is not None),
        bundle=str(bundle),
        bundle_sha256=digest,
        source=str(source.path),
        source_matches_bundle=fingerprint(checkpoint) == manifest.source.sha256,
        subject=subject.name,
        subject_ops=subject.describe(),
        reference=panel.exact.name,
        yardsticks=(panel.recurrent.name, panel.chunkwise.name),
        reader_distance=relative_distance(own, oracle, probe) if oracle else None,
        batch=batch,
        calls=ROLLOUT,
        seed=seed,
        notes=tuple(notes),
        versions=versions(),
        results=tuple(results),
    )


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
    return [sorted(same, key=_share)[1] for same in zip(*samples, strict=True)]


def _share(result: TensorResult) -> float:
    return share(result.judgement)


def rollout_inputs(spec: ModelSpec, batch: int, steps: int, seed: int) -> Array:
    """Random ids [batch, steps], or normal embeddings [batch, steps, D] for a bare stack."""
    random = np.random.default_rng(seed)
    if spec.vocab_size is not None:
        return random.integers(0, spec.vocab_size, (batch, steps))
    # rounded to float32, the type of the graph input, so that both sides see one number
    return random.standard_normal((batch, steps, spec.model_size)).astype(np.float32)


def _check_same_model(bundle: Path, manifest: Manifest, source: Source, spec: ModelSpec) -> None:
    states = [(s.key, s.shape) for s in state_specs(spec)]
    width = spec.vocab_size or spec.model_size
    is_same = states == [(s.key, s.shape) for s in manifest.states]
    if not is_same or manifest.outputs[0].shape[-1] != width:
        raise BundleError(
            f"{bundle}: its states or outputs are not those of {source.path}; "
            "give the source the bundle was made from"
        )


def _oracle(
    module: Family, source: Source, checkpoint: Checkpoint, dtype: str, notes: list[str]
) -> Session | None:
    try:
        return module.oracle(source, checkpoint_rounding(checkpoint.weights, dtype))
    except BackendUnavailableError as error:
        notes.append(str(error))
        return None


def _yardsticks(checkpoint: Checkpoint, dtype: str) -> tuple[Session, Session]:
    """The torch reference in the bundle's precision: recurrent, and chunkwise."""
    recurrent = ReferenceModel(checkpoint.spec, checkpoint.weights, dtype, dtype, "recurrent")
    return recurrent, recurrent.in_form("chunkwise")


def _subject(
    bundle: Path, manifest: Manifest, engine: str | None, native: bool, notes: list[str]
) -> BundleSession:
    """An engine, or the bundle in ONNX Runtime: a bfloat16 one by a widened copy, as noted."""
    if engine:
        notes.append(_WHOLE)
    if engine or manifest.dtype != "bfloat16":
        return open_session(bundle, engine, native=native)
    session = OrtSession(bundle, graph=emulated_graph(bundle / MODEL_FILE), native=native)
    session.name += " (emulated)"
    notes.append(_EMULATED)
    return session


def _operators(
    bundle: Path, manifest: Manifest, native: bool, notes: list[str]
) -> dict[str, BundleOperators]:
    """Who computes single operators, by the ending of the results' names."""
    runners = {"": BundleOperators(bundle, manifest, native=native)}
    if BODIES not in runners[""].describe().values():
        runners[" by body"] = BundleOperators(bundle, manifest, native=False)
        notes.append(_BOTH_WAYS)
    return runners
