"""The report on a model that was compared layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from xlstm_export.bundle.checksum import manifest_sha256
from xlstm_export.checkpoint.source import Source
from xlstm_export.environment import machine, versions
from xlstm_export.errors import OptionError
from xlstm_export.reference.threads import torch_threads
from xlstm_export.validation.checks.plan import Plan
from xlstm_export.validation.checks.rollout import BASELINE_ROWS
from xlstm_export.validation.given import read_inputs
from xlstm_export.validation.inputs import Rollout, draw_rollouts, in_words
from xlstm_export.validation.participants import is_of, share_threads
from xlstm_export.validation.result import IN_PARTS, Report, decide
from xlstm_export.validation.samples import Sample
from xlstm_export.validation.segments.compare import compare_in_parts
from xlstm_export.validation.segments.plan import Division
from xlstm_export.validation.segments.walk import Walk

if TYPE_CHECKING:
    from xlstm_export.validation.validate import Task

_NO_PRICE = (
    "what the weights in few bits cost was not measured: that runs the whole bundle as it is, and "
    "takes --memory for it"
)


def refuse_what_needs_all(task: Task, division: Division) -> None:
    """Raise OptionError for what a model in parts cannot do."""
    for name in ("save_io", "against"):
        if getattr(task, name) is not None:
            raise OptionError(
                name.replace("_", "-"),
                f"runs the whole model, which takes some {division.whole_bytes / 2**30:.2g} GiB of "
                "memory; leave it out, or raise --memory",
            )


def report_in_parts(
    walk: Walk, source: Source, digest: str, task: Task, recorded: Sequence[Sample]
) -> Report:
    """Compare bundle and checkpoint of ``walk`` layer by layer, and with what was ``recorded``."""
    both, seed = walk.both, task.seed
    spec, manifest = both.checkpoint.spec, both.manifest
    given = None
    if task.inputs is not None:
        given = read_inputs(task.inputs, both.bundle, spec, task.batch)
    batch = task.batch if given is None else given.rows
    sharing = share_threads(both.checkpoint, both.execution.threads)
    walk = replace(walk, batch=batch, sharing=sharing)
    plan = Plan(task.budget, seed, {}, given.text if given else None)

    def draw(number: int) -> Sequence[Rollout]:
        return given.rollouts if given else draw_rollouts(spec, batch + BASELINE_ROWS, number)

    with torch_threads(sharing.alone):
        found = compare_in_parts(walk, draw, plan, recorded, is_given=given is not None)
    both.notes.append(walk.division.words)
    if manifest.low_bit is not None:
        both.notes.append(_NO_PRICE)
    verdict = decide(found.results, found.has_upstream, found.checks)
    return Report(
        verdict=verdict if found.is_compared or verdict == "failed" else "unfinished",
        bundle=str(both.bundle),
        bundle_sha256=digest,
        manifest_sha256=manifest_sha256(both.bundle),
        source=str(source.path),
        source_matches_bundle=is_of(manifest, both.checkpoint),
        subject=found.subject,
        subject_ops=found.subject_ops,
        reference=found.reference,
        baselines=found.baselines,
        reader_distance=found.distance,
        batch=batch,
        fed=in_words(draw_rollouts(spec, batch, seed)) if given is None else given.words,
        seed=seed,
        notes=tuple(both.notes),
        versions=versions(),
        results=tuple(found.results),
        checks=tuple(found.checks),
        location=found.location,
        machine=machine(),
        budget=task.budget,
        mode=IN_PARTS,
        complete=found.complete,
    )
