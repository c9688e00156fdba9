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
from xlstm_export.interrupts import undisturbed
from xlstm_export.progress import Progress
from xlstm_export.reference.network import Network
from xlstm_export.reference.threads import is_small, torch_threads
from xlstm_export.runtime.open import Execution
from xlstm_export.runtime.session import Runner
from xlstm_export.validation.checks.operators import repeated_operators
from xlstm_export.validation.checks.plan import Plan, allowances
from xlstm_export.validation.checks.rollout import relative_distance
from xlstm_export.validation.checks.run import Found
from xlstm_export.validation.checks.samples import compare_samples
from xlstm_export.validation.inputs import Rollout
from xlstm_export.validation.networks.checks import run_network_checks
from xlstm_export.validation.networks.inputs import draw_all, in_words
from xlstm_export.validation.networks.participants import NetworkParticipants, gather_network
from xlstm_export.validation.participants import CHANGED, tell
from xlstm_export.validation.result import Location, Report, decide
from xlstm_export.validation.samples import Sample, read_samples
from xlstm_export.validation.tally import Interrupted, Tally, TensorResult, middle_of_samples
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
    """What an interrupt leaves is told of, where there is something."""
    manifest, network, notes = everyone.manifest, everyone.network, everyone.notes
    found = Found()
    with found.until_interrupted():
        _run(found, everyone, task, recorded, progress)
    probe = next(draw_all(network, everyone.shapes, task.seed))[0]
    verdict = decide(found.results, True, found.checked.checks)
    return Report(
        verdict=verdict if found.is_compared else "unfinished",
        bundle=str(everyone.bundle), bundle_sha256=digest,
        manifest_sha256=manifest_sha256(everyone.bundle), source=network.source,
        source_matches_bundle=network.sha256 == manifest.source.sha256,
        subject=everyone.subject.name, subject_ops=everyone.subject.describe(),
        reference=everyone.oracle.name,
        baselines=(everyone.recurrent.name, everyone.chunkwise.name),
        reader_distance=relative_distance(everyone.float64, everyone.oracle, probe),
        batch=task.batch, fed=in_words(everyone.shapes), seed=task.seed, notes=tuple(notes),
        versions=versions(), results=tuple(found.results), checks=tuple(found.checked.checks),
        location=found.location, machine=machine(), budget=task.budget,
        complete=found.checked.complete,
    )  # fmt: skip


def _run(
    found: Found, everyone: NetworkParticipants, task: Task, recorded: Sequence[Sample],
    progress: Progress | None,
) -> None:  # fmt: skip
    """The comparison with the network, the checks, and where it breaks."""
    network, notes = everyone.network, everyone.notes

    def sample(seed: int) -> list[TensorResult]:
        rollouts = list(draw_all(network, everyone.shapes, seed))
        return _rollouts(everyone, rollouts, task.batch, progress)

    found.results += middle_of_samples(sample, task.seed, notes)
    found.results += repeated_operators(everyone.operators, task.seed, notes)
    found.is_compared = True
    found.results += compare_samples(
        everyone.subject, everyone.float64, (everyone.recurrent, everyone.chunkwise), recorded,
        everyone.manifest, notes,
    )  # fmt: skip
    plan = Plan(task.budget, task.seed, allowances(found.results))
    found.checked = run_network_checks(everyone, plan, progress)
    found.results += found.checked.results
    if decide(found.results, True, found.checked.checks) == "failed":
        tell(progress, "finding where it breaks")
        found.location = _locate(everyone, found.results, task)


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
    outputs: dict[str, Tally] = {}
    carried: dict[str, Tally] = {}
    done, total = 0, sum(map(len, rollouts))
    try:
        for rollout in rollouts:
            states: list[Any] = [None] * len(runners)
            for number, call in enumerate(rollout, 1):
                few = {name: x[:batch] for name, x in call.items()}
                feeds = [few, few, *(call,) * (len(runners) - 2)]
                found = [who.run(*its) for who, *its in zip(runners, feeds, states, strict=True)]
                if manifest.states:
                    states = [state for _, state in found]
                with undisturbed():  # a call counts whole or not at all
                    _add(outputs, carried, found, manifest, number, batch)
                done += 1
                if progress is not None:
                    progress("comparing", done, total, "calls")
    except KeyboardInterrupt:
        raise Interrupted(_results(outputs, carried, manifest)) from None
    return _results(outputs, carried, manifest)


def _add(
    outputs: dict[str, Tally], carried: dict[str, Tally], found: Sequence[Any], manifest: Manifest,
    number: int, batch: int,
) -> None:  # fmt: skip
    for tensor in manifest.outputs:
        its = [output[tensor.name] for output, _ in found]
        outputs.setdefault(tensor.name, Tally()).add(its, number)
    subject, _, *others = (states for _, states in found)  # the network keeps its own to itself
    for state in manifest.states:
        exact, *forms = (states[state.key] for states in others)
        its = [subject[state.key], exact[:batch], exact, *forms]
        carried.setdefault(state.key, Tally()).add(its, number)


def _results(
    outputs: dict[str, Tally], carried: dict[str, Tally], manifest: Manifest
) -> list[TensorResult]:
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
