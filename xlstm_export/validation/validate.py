"""A bundle against the module it came from: what is compared, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xlstm_export.bundle.checksum import bundle_sha256, manifest_sha256
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.checkpoint.source import Source, fingerprint
from xlstm_export.environment import machine, versions
from xlstm_export.errors import BundleError
from xlstm_export.families.family import Family
from xlstm_export.model.numerics import rounds
from xlstm_export.model.spec import ModelSpec
from xlstm_export.progress import Progress
from xlstm_export.quiet import quiet
from xlstm_export.reference.threads import torch_threads
from xlstm_export.runtime.open import Execution
from xlstm_export.runtime.polygraphy_files import save_rollout
from xlstm_export.validation.against import Against
from xlstm_export.validation.checks.against import check_other, compare_against
from xlstm_export.validation.checks.numerics import errors_of_both
from xlstm_export.validation.checks.operators import check_operators
from xlstm_export.validation.checks.plan import Budget, Plan, allowances, check_budget
from xlstm_export.validation.checks.rollout import (
    BASELINE_ROWS,
    compare_ragged,
    compare_rollout,
    relative_distance,
)
from xlstm_export.validation.checks.run import Checked, run_checks
from xlstm_export.validation.checks.samples import compare_samples
from xlstm_export.validation.given import Given, read_inputs
from xlstm_export.validation.inputs import (
    ROLLOUT,
    Feeds,
    Rollout,
    draw_rollouts,
    in_words,
    rollout_inputs,
)
from xlstm_export.validation.participants import (
    Participants,
    gather,
    read_both,
    share_threads,
    tell,
)
from xlstm_export.validation.price import price_of
from xlstm_export.validation.result import Location, Report, decide
from xlstm_export.validation.samples import Sample, read_samples
from xlstm_export.validation.segments.compare import Walk
from xlstm_export.validation.segments.plan import divide
from xlstm_export.validation.segments.report import refuse_what_needs_all, report_in_parts
from xlstm_export.validation.tally import TensorResult, middle_of_samples

_ELSEWHERE = (
    "no part of the graph is wrong by itself in ONNX Runtime on the CPU: the fault is in what else "
    "runs it, or too small for a short rollout"
)
_READER_STEPS = 16
_SAVED = 4
"""Calls of a rollout that are saved for Polygraphy."""


@dataclass(frozen=True)
class Task:
    """How much is compared, and on what: ``batch`` rows drawn by ``seed``, or the file ``inputs``.

    ``save_io``: the folder that the bundle's inputs and outputs are saved in. ``samples``: a file
    of what was recorded elsewhere. ``against``: another bundle. ``memory``: bytes to take at most;
    None: what is available. Raises OptionError for a budget that is none.
    """

    batch: int = 2
    seed: int = 0
    budget: Budget = "fast"
    inputs: Path | None = None
    save_io: Path | None = None
    samples: Path | None = None
    against: Path | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        check_budget(self.budget)


def validate_bundle(
    bundle: Path,
    source: Source,
    module: Family,
    execution: Execution,
    *,
    upstream: bool,
    task: Task,
    progress: Progress | None = None,
) -> Report:
    """Run ``bundle`` beside the upstream module of ``source``; judge every tensor.

    Raises BundleError when the two have different states or vocabularies, and when the bundle
    was replaced meanwhile, and where the other of ``task`` cannot be compared with it; InputError
    where ``samples`` are none of it.
    """
    if task.against is not None:
        check_other(bundle, task.against, execution)
    recorded = read_samples(task.samples, read_manifest(bundle)) if task.samples else []
    with quiet():
        digest, manifest = bundle_sha256(bundle), read_manifest(bundle)
        both = read_both(bundle, manifest, digest, source, module, execution, progress)
        division = divide(both, task.memory)
        if division.parts:
            refuse_what_needs_all(task, division)
            walk = Walk(both, module if upstream else None, division, progress)
            report = report_in_parts(walk, source, digest, task)
        else:
            everyone = gather(both, module, upstream, progress)
            report = _compare(everyone, module, source, digest, task, recorded, progress)
            if task.save_io is not None:
                drawn = draw_rollouts(everyone.spec, task.batch, task.seed)[0]
                save_rollout(everyone.subject, drawn[:_SAVED], task.save_io)
        if bundle_sha256(bundle) != digest:
            raise BundleError(f"{bundle}: was replaced while it was compared; validate it again")
        return report


def _compare(
    everyone: Participants, module: Family, source: Source, digest: str, task: Task,
    recorded: Sequence[Sample], progress: Progress | None,
) -> Report:  # fmt: skip
    manifest, notes, seed = everyone.manifest, everyone.notes, task.seed
    given = _read_given(everyone, task)
    batch = task.batch if given is None else given.rows
    threads, workers = share_threads(everyone.checkpoint, everyone.execution.threads)
    with torch_threads(threads):
        results = middle_of_samples(
            lambda seed: _sample(everyone, given, batch, workers, seed, progress), seed, notes
        )
        baselines = (everyone.recurrent, everyone.chunkwise)
        price = price_of(everyone, given.text if given else None, recorded, seed, progress)
        judged = recorded if price is None else []
        results += compare_samples(
            everyone.subject, everyone.float64, baselines, judged, manifest, notes
        )
        plan = Plan(task.budget, seed, allowances(results), given.text if given else None)
        checked = run_checks(everyone, plan, progress)
        results += checked.results
        is_source = fingerprint(everyone.checkpoint) == manifest.source.sha256
        is_right = decide(results, True, checked.checks) != "failed"
        rollouts = draw_rollouts(everyone.spec, batch, seed) if given is None else given.rollouts
        against = _beside(everyone, task, plan, rollouts, batch, is_source, checked, progress)
        probe, location = _probe(everyone.spec, batch, seed), None
        if not is_right:
            tell(progress, "finding where it breaks")
            location = _locate(everyone, results, probe, batch, seed)
        distance = _reader_distance(everyone, module, probe)
    return Report(
        verdict=decide(results, everyone.oracle is not None, checked.checks),
        bundle=str(everyone.bundle),
        bundle_sha256=digest,
        manifest_sha256=manifest_sha256(everyone.bundle),
        source=str(source.path),
        source_matches_bundle=is_source,
        subject=everyone.subject.name,
        subject_ops=everyone.subject.describe(),
        reference=everyone.runners.reference.name,
        baselines=(everyone.recurrent.name, everyone.chunkwise.name),
        reader_distance=distance,
        batch=batch,
        fed=in_words(rollouts) if given is None else given.words,
        seed=seed,
        notes=tuple(notes),
        versions=versions(),
        results=tuple(results),
        checks=tuple(checked.checks),
        location=location,
        continuations=checked.continuations,
        machine=machine(),
        budget=task.budget,
        price=price,
        against=against,
        complete=checked.complete,
    )


def _read_given(everyone: Participants, task: Task) -> Given | None:
    if task.inputs is None:
        return None
    return read_inputs(task.inputs, everyone.bundle, everyone.spec, task.batch)


def _sample(
    everyone: Participants, given: Given | None, batch: int, workers: int, seed: int,
    progress: Progress | None,
) -> list[TensorResult]:  # fmt: skip
    """Every result on inputs of one seed, or on those that are given."""
    drawn: Sequence[Rollout] = (
        draw_rollouts(everyone.spec, batch + BASELINE_ROWS, seed)
        if given is None
        else given.rollouts
    )
    results = compare_rollout(everyone.runners, drawn, batch, everyone.manifest, workers, progress)
    if everyone.manifest.ragged:
        inputs = rollout_inputs(everyone.spec, batch, sum(ROLLOUT), seed)
        results += compare_ragged(everyone.runners, inputs, everyone.manifest)
    tell(progress, "checking operators")
    return results + (check_operators(everyone.operators, seed) if everyone.operators else [])


def _locate(
    everyone: Participants, results: Sequence[TensorResult], probe: Feeds, batch: int, seed: int
) -> Location | None:
    """Where it breaks: in the graph, in the reader, or, as a note says, in neither."""
    # a right bundle does not wait for the graph library
    from xlstm_export.validation.location.locate import locate_fault
    from xlstm_export.validation.location.reader import locate_reader_fault

    try:
        found = locate_fault(everyone, results, batch, seed)
    except Exception as error:  # a broken graph fails in many ways: the verdict stands without
        everyone.notes.append(f"where it breaks was not found: {error}")
        return None
    if found is None:
        found = locate_reader_fault(everyone, probe)
    if found is None:
        everyone.notes.append(_ELSEWHERE)
    return found


def _beside(
    everyone: Participants, task: Task, plan: Plan, rollouts: Sequence[Rollout], batch: int,
    is_source: bool, checked: Checked, progress: Progress | None,
) -> Against | None:  # fmt: skip
    """The other bundle of ``task`` beside this one; ``checked`` is told what came of it."""
    if task.against is None or not checked.complete:
        return None
    try:
        compared = compare_against(
            everyone, task.against, is_source, rollouts, batch, plan, progress
        )
    except KeyboardInterrupt:
        checked.complete = False
        return None
    checked.checks.append(compared.check)
    checked.continuations += compared.continuations
    return compared.against


def _reader_distance(everyone: Participants, module: Family, probe: Feeds) -> float | None:
    """That of our float64 model from upstream's; None without upstream."""
    if everyone.oracle is None:
        return None
    if rounds(everyone.as_upstream.spec):
        everyone.notes.append(_on_numerics(everyone, module, probe))
    return relative_distance(everyone.float64, everyone.oracle, probe)


def _probe(spec: ModelSpec, batch: int, seed: int) -> Feeds:
    """One call, for the distance of two float64 models."""
    if spec.has_sequence:
        return {spec.inputs[0].name: rollout_inputs(spec, batch, _READER_STEPS, seed)}
    return draw_rollouts(spec, batch, seed)[0][0]


def _on_numerics(everyone: Participants, module: Family, feeds: Feeds) -> str:
    manifest = everyone.manifest
    rounding = module.oracle(everyone.as_upstream, everyone.storage)
    return errors_of_both(everyone.subject, manifest, rounding, everyone.as_upstream, feeds)
