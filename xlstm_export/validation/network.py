"""A bundle of a user's network against the network itself, in float64."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.bundle.checksum import bundle_sha256, is_as_written, manifest_sha256
from xlstm_export.bundle.manifest import Manifest, read_manifest, shape_text
from xlstm_export.environment import machine, versions
from xlstm_export.errors import BundleError, UnsupportedModelError
from xlstm_export.progress import Progress
from xlstm_export.reference.network import Network, time_dims
from xlstm_export.reference.threads import SMALL, torch_threads
from xlstm_export.runtime.open import Execution
from xlstm_export.runtime.session import Array, Runner
from xlstm_export.validation.checks.operators import check_operators
from xlstm_export.validation.checks.rollout import BASELINE_ROWS, relative_distance
from xlstm_export.validation.checks.samples import compare_samples
from xlstm_export.validation.inputs import Feeds, Rollout
from xlstm_export.validation.participants import (
    CHANGED,
    bundle_operators,
    open_subject,
)
from xlstm_export.validation.result import Report, decide
from xlstm_export.validation.samples import read_samples
from xlstm_export.validation.tally import Tally, TensorResult, middle_of_samples

CALLS = (5, *[1] * 6, 19, *[1] * 6, 2, 24)
"""Steps of the calls of a bundle with states: it, and the network, see them as one sequence."""
_ROUNDING_ROWS = 30
"""The same of a network that rounds between its steps: a number that falls to the other side is
rare and large, so that a baseline has to see many."""
_DRAWS = 2
"""Of each shape, or of the whole rollout."""


def validate_network(
    bundle: Path, module: Any, example_inputs: Any, execution: Execution, *, batch: int, seed: int,
    samples: Path | None, progress: Progress | None,
) -> Report:  # fmt: skip
    """Run ``bundle`` beside ``module``; judge every output and state.

    Raises BundleError when the two do not belong together, InputError where ``samples`` are none
    of the bundle.
    """
    digest, manifest = bundle_sha256(bundle), read_manifest(bundle)
    recorded = read_samples(samples, manifest) if samples else []
    network = Network(module, example_inputs, manifest)
    # in a small network torch's threads wait for each other longer than they compute
    with (
        warnings.catch_warnings(),
        torch_threads(1 if network.parameters < SMALL else execution.threads),
    ):
        warnings.simplefilter("ignore")
        oracle, float64 = network.oracle(), network.reference("float64")
        forms = [network.reference(manifest.dtype, form) for form in ("recurrent", "chunkwise")]
        notes: list[str] = []
        subject = open_subject(bundle, manifest, execution, notes)
        if is_as_written(bundle, manifest, digest) is False:
            notes.append(CHANGED)
        operators = bundle_operators(bundle, manifest, execution, notes)
        rows = batch + (_ROUNDING_ROWS if network.rounds else BASELINE_ROWS)
        shapes = _shapes(network, oracle, rows, notes)
        everyone: list[Runner] = [subject, oracle, float64, *forms]

        def sample(seed: int) -> list[TensorResult]:
            rollouts = list(_draw_all(network, shapes, rows, seed))
            results = _compare(everyone, rollouts, batch, manifest, progress)
            return results + (check_operators(operators, seed) if operators else [])

        results = middle_of_samples(sample, seed, notes)
        results += compare_samples(subject, float64, forms, recorded, manifest, notes)
        probe = next(_draw_all(network, shapes, rows, seed))[0]
        distance = relative_distance(float64, oracle, probe)
    if bundle_sha256(bundle) != digest:
        raise BundleError(f"{bundle}: was replaced while it was compared; validate it again")
    return Report(
        verdict=decide(results, True), bundle=str(bundle), bundle_sha256=digest,
        manifest_sha256=manifest_sha256(bundle), source=network.source,
        source_matches_bundle=network.sha256 == manifest.source.sha256, subject=subject.name,
        subject_ops=subject.describe(), reference=oracle.name,
        baselines=(forms[0].name, forms[1].name), reader_distance=distance, batch=batch,
        fed=_in_words(shapes), seed=seed, notes=tuple(notes), versions=versions(),
        results=tuple(results), machine=machine(),
    )  # fmt: skip


Shapes = Sequence[Sequence[Mapping[str, tuple[int, ...]]]]
"""Shapes of the inputs, of each call of each rollout."""


def _shapes(network: Network, oracle: Runner, rows: int, notes: list[str]) -> Shapes:
    """What is fed: calls the network takes, of the examples' size and others."""
    manifest, examples = network.manifest, network.examples
    sizes = {
        size: examples[tensor.name].shape[dim]
        for tensor in manifest.inputs
        for dim, size in enumerate(tensor.shape)
        if isinstance(size, str) and dim > 0
    }
    times = time_dims(manifest)
    if not manifest.states:
        wanted = [sizes] + [{n: change(s) for n, s in sizes.items()} for change in _OTHERS if sizes]
        taken = [w for w in wanted if _takes(oracle, network, _sized(manifest, rows, w))]
        if len(taken) < len(wanted):
            notes.append("the network itself takes no other sizes than those that were compared")
        if not taken:
            reason = _refusal(oracle, network, _sized(manifest, rows, sizes))
            raise UnsupportedModelError(
                f"{network.source}: fails in float64 on inputs of the examples' shapes, and "
                f"validation compares with it in float64 ({reason})"
            )
        return [[_sized(manifest, rows, w)] for w in taken for _ in range(_DRAWS)]
    in_time = {t.shape[times[t.name]] for t in manifest.inputs if t.name in times}
    calls: list[int] = []
    for upto in itertools.accumulate(CALLS):
        total = {n: upto if n in in_time else s for n, s in sizes.items()}
        if _takes(oracle, network, _sized(manifest, rows, total)):
            calls.append(upto - sum(calls))
    if not calls:
        raise UnsupportedModelError(
            f"{network.source}: fails in float64 on every number of steps that is compared, "
            f"{CALLS[0]} to {sum(CALLS)}"
        )
    if tuple(calls) != CALLS:
        notes.append(
            f"the network does not take every number of steps: calls of {calls} were compared"
        )
    rollout = [
        _sized(manifest, rows, {n: c if n in in_time else s for n, s in sizes.items()})
        for c in calls
    ]
    return [rollout] * _DRAWS


_OTHERS: tuple[Callable[[int], int], ...] = (
    lambda size: size + 9, lambda size: max(2, size // 2 + 1),
)  # fmt: skip
"""Free sizes other than the examples'."""


def _sized(manifest: Manifest, rows: int, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs where the free sizes are ``sizes``, and the batch ``rows``."""
    return {
        t.name: tuple(d if isinstance(d, int) else sizes.get(d, rows) for d in t.shape)
        for t in manifest.inputs
    }


def _takes(oracle: Runner, network: Network, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return not _refusal(oracle, network, shapes)


def _refusal(oracle: Runner, network: Network, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Why the network does not take inputs of ``shapes``; nothing where it does."""
    try:
        oracle.run(_draw(network, shapes, np.random.default_rng(0)))
    except Exception as error:  # whatever the network raises where a size does not fit it
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return ""


def _draw_all(network: Network, shapes: Shapes, rows: int, seed: int) -> Iterator[Rollout]:
    random = np.random.default_rng(seed)
    for rollout in shapes:
        yield [_draw(network, call, random) for call in rollout]


def _draw(
    network: Network, shapes: Mapping[str, tuple[int, ...]], random: np.random.Generator
) -> Feeds:
    """Numbers like the examples': as large, as far apart; whole numbers from the same range."""
    feeds: dict[str, Array] = {}
    for tensor in network.manifest.inputs:
        example, shape = network.examples[tensor.name], shapes[tensor.name]
        if example.dtype.kind == "i":
            drawn = random.integers(example.min(), example.max() + 1, shape)
        else:
            drawn = example.mean() + example.std() * random.standard_normal(shape)
        feeds[tensor.name] = drawn.astype(tensor.dtype)
    return feeds


def _compare(
    everyone: Sequence[Runner], rollouts: Sequence[Rollout], batch: int, manifest: Manifest,
    progress: Progress | None,
) -> list[TensorResult]:  # fmt: skip
    """Every call through everyone, each from its own states; one result per output and state.

    Subject and oracle see the first ``batch`` rows, the others all.
    """
    outputs = {tensor.name: Tally() for tensor in manifest.outputs}
    carried = {state.key: Tally() for state in manifest.states}
    done, total = 0, sum(map(len, rollouts))
    for rollout in rollouts:
        states: list[Any] = [None] * len(everyone)
        for number, call in enumerate(rollout, 1):
            given = states if carried else [None] * len(everyone)
            few = {name: x[:batch] for name, x in call.items()}
            feeds = [few, few, *(call,) * (len(everyone) - 2)]
            found = [who.run(*its) for who, *its in zip(everyone, feeds, given, strict=True)]
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


def _in_words(shapes: Shapes) -> str:
    """What is fed, for the report."""
    calls = shapes[0] if len(shapes[0]) > 1 else [rollout[0] for rollout in shapes[::_DRAWS]]
    carried = " with carried states" if len(shapes[0]) > 1 else ""
    first = next(iter(calls[0]))
    return f"{first} of {'; '.join(shape_text(call[first]) for call in calls)}{carried}"
