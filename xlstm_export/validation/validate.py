"""A bundle against the module it came from: what is compared, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xlstm_export.bundle.checksum import bundle_sha256, manifest_sha256
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.checkpoint.source import Source
from xlstm_export.environment import machine, versions
from xlstm_export.errors import BundleError, EngineError
from xlstm_export.families.family import Family
from xlstm_export.model.numerics import rounds
from xlstm_export.model.spec import ModelSpec
from xlstm_export.progress import Progress
from xlstm_export.quiet import quiet
from xlstm_export.reference.threads import Sharing, torch_threads
from xlstm_export.runtime.open import Execution
from xlstm_export.runtime.polygraphy_files import save_rollout
from xlstm_export.validation.against import Against
from xlstm_export.validation.checks.against import check_other, compare_against
from xlstm_export.validation.checks.numerics import errors_of_both
from xlstm_export.validation.checks.operators import repeated_operators
from xlstm_export.validation.checks.plan import Budget, Plan, allowances, check_budget
from xlstm_export.validation.checks.rollout import (
    baseline_rows,
    compare_ragged,
    compare_rollout,
    relative_distance,
)
from xlstm_export.validation.checks.run import Found, run_checks
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
    is_of,
    read_both,
    share_threads,
    tell,
)
from xlstm_export.validation.price import Price, price_of
from xlstm_export.validation.result import Location, Report, decide
from xlstm_export.validation.samples import Sample, read_samples
from xlstm_export.validation.segments.plan import divide
from xlstm_export.validation.speed import Speeds, measure_speed
from xlstm_export.validation.tally import Interrupted, TensorResult, middle_of_samples

ELSEWHERE = (
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


@dataclass
class _Found(Found):
    is_right: bool = True
    price: Price | None = None
    against: Against | None = None
    speeds: Speeds | None = None
    distance: float | None = None


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
            # a model that fits does not wait for the graph library
            from xlstm_export.validation.segments.report import (
                refuse_what_needs_all,
                report_in_parts,
            )
            from xlstm_export.validation.segments.walk import Walk

            refuse_what_needs_all(task, division)
            walk = Walk(both, module if upstream else None, division, progress)
            report = report_in_parts(walk, source, digest, task, recorded)
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
    """What an interrupt leaves is told of, where there is something."""
    given = _read_given(everyone, task)
    rows = task.batch if given is None else given.rows
    own = draw_rollouts(everyone.spec, rows, task.seed) if given is None else given.rollouts
    found = _Found()
    sharing = share_threads(everyone.checkpoint, everyone.execution.threads)
    with torch_threads(sharing.alone), found.until_interrupted():
        _run_first(found, everyone, given, rows, task, recorded, sharing, progress)
        _run_rest(found, everyone, given, own, rows, task, progress)
        _explain(found, everyone, module, rows, task.seed, progress)
    fed = in_words(own) if given is None else given.words
    return _report(found, everyone, source, digest, task, rows, fed)


def _run_first(
    found: _Found, everyone: Participants, given: Given | None, rows: int, task: Task,
    recorded: Sequence[Sample], sharing: Sharing, progress: Progress | None,
) -> None:  # fmt: skip
    """The comparison with the reference, and with what was recorded elsewhere."""

    def sample(seed: int) -> list[TensorResult]:
        return _sample(everyone, given, rows, sharing, seed, progress)

    found.results += (
        middle_of_samples(sample, task.seed, everyone.notes) if given is None
        else sample(task.seed)
    )  # fmt: skip
    tell(progress, "checking operators")
    found.results += repeated_operators(everyone.operators, task.seed, everyone.notes)
    found.is_compared = True
    text = given.text if given else None
    found.price = price_of(everyone, text, recorded, task.seed, progress)
    found.results += compare_samples(
        everyone.subject, everyone.float64, (everyone.recurrent, everyone.chunkwise),
        recorded if found.price is None else [], everyone.manifest, everyone.notes,
    )  # fmt: skip


def _run_rest(
    found: _Found, everyone: Participants, given: Given | None, own: Sequence[Rollout], rows: int,
    task: Task, progress: Progress | None,
) -> None:  # fmt: skip
    """The checks, the other bundle, and everyone's speed."""
    text = given.text if given else None
    plan = Plan(task.budget, task.seed, allowances(found.results), text)
    found.checked = run_checks(everyone, plan, progress)
    found.results += found.checked.results
    found.is_right = decide(found.results, True, found.checked.checks) != "failed"
    if task.against is not None and found.checked.complete:
        compared = compare_against(everyone, task.against, own, rows, plan, progress)
        found.against = compared.against
        found.checked.checks.append(compared.check)
        found.checked.continuations += compared.continuations
    if found.checked.complete:
        tell(progress, "timing")
        try:
            found.speeds = measure_speed(everyone, plan, task.against)
        except EngineError as error:  # it is built for other shapes
            everyone.notes.append(f"not timed by this engine: {error}")


def _explain(
    found: _Found, everyone: Participants, module: Family, rows: int, seed: int,
    progress: Progress | None,
) -> None:  # fmt: skip
    """Where a bundle breaks, and how far reader and upstream are apart."""
    probe = _probe(everyone.spec, rows, seed)
    if not found.is_right:
        tell(progress, "finding where it breaks")
        found.location = _locate(everyone, found.results, probe, rows, seed)
    if everyone.oracle is not None:
        found.distance = relative_distance(everyone.float64, everyone.oracle, probe)
        if rounds(everyone.as_upstream.spec):
            everyone.notes.append(_on_numerics(everyone, module, probe))


def _report(
    found: _Found, everyone: Participants, source: Source, digest: str, task: Task, rows: int,
    fed: str,
) -> Report:  # fmt: skip
    manifest, checked = everyone.manifest, found.checked
    verdict = decide(found.results, everyone.oracle is not None, checked.checks)
    return Report(
        verdict=verdict if found.is_compared else "unfinished",
        bundle=str(everyone.bundle),
        bundle_sha256=digest,
        manifest_sha256=manifest_sha256(everyone.bundle),
        source=str(source.path),
        source_matches_bundle=is_of(manifest, everyone.checkpoint),
        subject=everyone.subject.name,
        subject_ops=everyone.subject.describe(),
        reference=everyone.runners.reference.name,
        baselines=(everyone.recurrent.name, everyone.chunkwise.name),
        reader_distance=found.distance,
        batch=rows,
        fed=fed,
        seed=task.seed,
        notes=tuple(everyone.notes),
        versions=versions(),
        results=tuple(found.results),
        checks=tuple(checked.checks),
        location=found.location,
        continuations=checked.continuations,
        machine=machine(),
        budget=task.budget,
        price=found.price,
        against=found.against,
        speeds=found.speeds,
        complete=checked.complete,
    )


def _read_given(everyone: Participants, task: Task) -> Given | None:
    if task.inputs is None:
        return None
    return read_inputs(task.inputs, everyone.bundle, everyone.spec, task.batch)


def _sample(
    everyone: Participants, given: Given | None, batch: int, sharing: Sharing, seed: int,
    progress: Progress | None,
) -> list[TensorResult]:  # fmt: skip
    """The rollout's results on inputs of one seed, or on those that are given."""
    drawn: Sequence[Rollout] = (
        draw_rollouts(everyone.spec, batch + baseline_rows(everyone.spec), seed)
        if given is None
        else given.rollouts
    )
    results = compare_rollout(everyone.runners, drawn, batch, everyone.manifest, sharing, progress)
    if not everyone.manifest.ragged:
        return results
    try:
        inputs = rollout_inputs(everyone.spec, batch, sum(ROLLOUT), seed)
        return results + compare_ragged(everyone.runners, inputs, everyone.manifest)
    except KeyboardInterrupt:
        raise Interrupted(results) from None
    except EngineError as error:  # it is built for other shapes
        everyone.notes.append(f"rows of different lengths were not run by this engine: {error}")
        return results


def _locate(
    everyone: Participants, results: Sequence[TensorResult], probe: Feeds, batch: int, seed: int
) -> Location | None:
    """Where it breaks: in the graph, in the reader, or, as a note says, in neither."""
    # a right bundle does not wait for the graph library
    from xlstm_export.validation.location.engine import locate_engine_fault
    from xlstm_export.validation.location.locate import locate_fault
    from xlstm_export.validation.location.reader import locate_reader_fault
    from xlstm_export.validation.location.unbounded import locate_unbounded

    try:
        found = locate_fault(everyone, results, batch, seed)
    except Exception as error:  # a broken graph fails in many ways: the verdict stands without
        everyone.notes.append(f"where it breaks was not found: {error}")
        return None
    if found is None:
        found = (
            locate_reader_fault(everyone, probe)
            or locate_engine_fault(everyone, results)
            or locate_unbounded(everyone.spec, results)
        )
    if found is None:
        everyone.notes.append(ELSEWHERE)
    return found


def _probe(spec: ModelSpec, batch: int, seed: int) -> Feeds:
    """One call, for the distance of two float64 models."""
    if spec.has_sequence:
        return {spec.inputs[0].name: rollout_inputs(spec, batch, _READER_STEPS, seed)}
    return draw_rollouts(spec, batch, seed)[0][0]


def _on_numerics(everyone: Participants, module: Family, feeds: Feeds) -> str:
    manifest = everyone.manifest
    rounding = module.oracle(everyone.as_upstream, everyone.storage)
    return errors_of_both(everyone.subject, manifest, rounding, everyone.as_upstream, feeds)
