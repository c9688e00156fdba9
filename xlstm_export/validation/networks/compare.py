"""A bundle of a user's network against the network itself, in float64."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xlstm_export.bundle.checksum import bundle_sha256, is_as_written, manifest_sha256
from xlstm_export.bundle.manifest import Manifest, read_manifest
from xlstm_export.environment import machine, versions
from xlstm_export.errors import BundleError
from xlstm_export.progress import Progress
from xlstm_export.reference.network import Network
from xlstm_export.reference.threads import is_small, torch_threads
from xlstm_export.runtime.open import Execution
from xlstm_export.runtime.session import Runner
from xlstm_export.validation.checks.operators import repeated_operators
from xlstm_export.validation.checks.plan import Plan, allowances
from xlstm_export.validation.checks.rollout import relative_distance
from xlstm_export.validation.checks.samples import compare_samples
from xlstm_export.validation.inputs import Rollout
from xlstm_export.validation.networks.checks import run_network_checks
from xlstm_export.validation.networks.inputs import draw_all, in_words
from xlstm_export.validation.networks.participants import NetworkParticipants, gather_network
from xlstm_export.validation.participants import CHANGED, tell
from xlstm_export.validation.result import Location, Report, decide
from xlstm_export.validation.samples import Sample, read_samples
from xlstm_export.validation.tally import Tally, TensorResult, middle_of_samples
from xlstm_export.validation.validate import ELSEWHERE, Task


def validate_network(
    bundle: Path, module: Any, example_inputs: Any, execution: Execution, task: Task,
    progress: Progress | None,
) -> Report:  # fmt: skip
    """Run ``bundle`` beside ``module``; judge every output and state.

    Raises BundleError when the two do not belong together, InputError where the task's samples are
    none of the bundle.
    """
    digest, manifest = bundle_sha256(bundle), read_manifest(bundle)
    recorded = read_samples(task.samples, manifest) if task.samples else []
    network = Network(module, example_inputs, manifest)
    # in a small network threads wait for each other longer than they compute
    small = is_small(network.parameters)
    if small and execution.threads is None:
        execution = replace(execution, threads=1)
    with warnings.catch_warnings(), torch_threads(1 if small else execution.threads):
        warnings.simplefilter("ignore")
        notes: list[str] = []
        everyone = gather_network(bundle, network, execution, task.batch, notes)
        if is_as_written(bundle, manifest, digest) is False:
            notes.append(CHANGED)
        report = _compare(everyone, digest, task, recorded, progress)
    if bundle_sha256(bundle) != digest:
        raise BundleError(f"{bundle}: was replaced while it was compared; validate it again")
    return report


def _compare(
    everyone: NetworkParticipants, digest: str, task: Task, recorded: Sequence[Sample],
    progress: Progress | None,
) -> Report:  # fmt: skip
    manifest, network, notes = everyone.manifest, everyone.network, everyone.notes

    def sample(seed: int) -> list[TensorResult]:
        rollouts = list(draw_all(network, everyone.shapes, seed))
        return _rollouts(everyone, rollouts, task.batch, progress)

    results = middle_of_samples(sample, task.seed, notes)
    results += repeated_operators(everyone.operators, task.seed, notes)
    forms = (everyone.recurrent, everyone.chunkwise)
    results += compare_samples(everyone.subject, everyone.float64, forms, recorded, manifest, notes)
    plan = Plan(task.budget, task.seed, allowances(results))
    checked = run_network_checks(everyone, plan, progress)
    results += checked.results
    probe = next(draw_all(network, everyone.shapes, task.seed))[0]
    verdict = decide(results, True, checked.checks)
    location = None
    if verdict == "failed":
        tell(progress, "finding where it breaks")
        location = _locate(everyone, results, task)
    return Report(
        verdict=verdict, bundle=str(everyone.bundle), bundle_sha256=digest,
        manifest_sha256=manifest_sha256(everyone.bundle), source=network.source,
        source_matches_bundle=network.sha256 == manifest.source.sha256,
        subject=everyone.subject.name, subject_ops=everyone.subject.describe(),
        reference=everyone.oracle.name, baselines=(forms[0].name, forms[1].name),
        reader_distance=relative_distance(everyone.float64, everyone.oracle, probe),
        batch=task.batch, fed=in_words(everyone.shapes), seed=task.seed, notes=tuple(notes),
        versions=versions(), results=tuple(results), checks=tuple(checked.checks),
        location=location, machine=machine(), budget=task.budget, complete=checked.complete,
    )  # fmt: skip


def _rollouts(
    everyone: NetworkParticipants, rollouts: Sequence[Rollout], batch: int,
    progress: Progress | None,
) -> list[TensorResult]:  # fmt: skip
    """Every call through everyone, each from its own states; one result per output and state.

    Subject and oracle see the first ``batch`` rows, the others all.
    """
    manifest: Manifest = everyone.manifest
    runners: list[Runner] = [
        everyone.subject, everyone.oracle, everyone.float64, everyone.recurrent, everyone.chunkwise,
    ]  # fmt: skip
    outputs = {tensor.name: Tally() for tensor in manifest.outputs}
    carried = {state.key: Tally() for state in manifest.states}
    done, total = 0, sum(map(len, rollouts))
    for rollout in rollouts:
        states: list[Any] = [None] * len(runners)
        for number, call in enumerate(rollout, 1):
            given = states if carried else [None] * len(runners)
            few = {name: x[:batch] for name, x in call.items()}
            feeds = [few, few, *(call,) * (len(runners) - 2)]
            found = [who.run(*its) for who, *its in zip(runners, feeds, given, strict=True)]
            states = [state for _, state in found]
            for name, tally in outputs.items():
                tally.add([output[name] for output, _ in found], number)
            for key, tally in carried.items():  # the network keeps its own to itself
                subject, _, float64, *forms = states
                exact = float64[key][:batch]
                tally.add([subject[key], exact, *(s[key] for s in (float64, *forms))], number)
            done += 1
            if progress is not None:
                progress("comparing", done, total, "calls")
    return [
        *(t.result(name, "output", manifest.dtype) for name, t in outputs.items()),
        *(t.result(key, "state", "float32") for key, t in carried.items()),
    ]


def _locate(
    everyone: NetworkParticipants, results: Sequence[TensorResult], task: Task
) -> Location | None:
    """Where it breaks: in the graph, in what was recognised, or, as a note says, in neither."""
    # a right bundle does not wait for the graph library
    from xlstm_export.validation.networks.location import locate_in_network
    from xlstm_export.validation.networks.recognition import locate_recognition

    try:
        found = locate_in_network(everyone, results, task.seed)
        found = found or locate_recognition(everyone, task.seed)
    except Exception as error:  # a broken graph fails in many ways: the verdict stands without
        everyone.notes.append(f"where it breaks was not found: {error}")
        return None
    if found is None:
        everyone.notes.append(ELSEWHERE)
    return found
