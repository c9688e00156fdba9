"""What is fed to a user's network: calls that it takes, of numbers like its examples'."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from xlstm_export.bundle.manifest import Manifest, shape_text
from xlstm_export.errors import InputError, UnsupportedModelError
from xlstm_export.modules.examples import is_one_number, numbers_like
from xlstm_export.reference.network import Network, time_dims
from xlstm_export.runtime.session import Runner
from xlstm_export.validation.inputs import Feeds, Rollout

CALLS = (5, *[1] * 6, 19, *[1] * 6, 2, 24)
"""Steps of the calls of a bundle with states: it, and the network, see them as one sequence."""
_DRAWS = 2
"""Of each shape, or of the whole rollout."""

Shapes = Sequence[Sequence[Mapping[str, tuple[int, ...]]]]
"""Shapes of the inputs, of each call of each rollout."""

_OTHERS: tuple[Callable[[int], int], ...] = (
    lambda size: size + 9, lambda size: max(2, size // 2 + 1),
)  # fmt: skip
"""Free sizes other than the examples'."""


def check_examples(network: Network, notes: list[str]) -> None:
    """Say of examples that hold one number alone what is compared instead.

    Raises InputError where nothing but one whole number could be compared: of an embedding it would
    see a single row.
    """
    alone = {n: x.flat[0] for n, x in network.examples.items() if is_one_number(x)}
    whole = {n: k for n, k in alone.items() if network.examples[n].dtype.kind == "i"}
    if len(whole) == len(network.examples):
        name, number = next(iter(whole.items()))
        raise InputError(
            f"{name}: its example holds the number {number} alone, and a comparison of nothing "
            "else says little: give an example of numbers as different as real inputs are"
        )
    for name, number in alone.items():
        compared = "so does all that was compared" if name in whole else "numbers around it were"
        notes.append(
            f"the example of {name} holds the number {number:g} alone, and {compared}"
            f"{'' if name in whole else ' compared'}: give one of numbers like real inputs"
        )


def taken_shapes(network: Network, oracle: Runner, rows: int, notes: list[str]) -> Shapes:
    """What is fed: calls the network takes, of the examples' size and others."""
    manifest, sizes = network.manifest, _free_sizes(network)
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
    calls: list[int] = []
    for upto in itertools.accumulate(CALLS):
        if _takes(oracle, network, shapes_of(network, rows, upto)):
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
    return [[shapes_of(network, rows, steps) for steps in calls]] * _DRAWS


def shapes_of(network: Network, rows: int, steps: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs of a call of ``steps`` steps, of a network with states."""
    manifest, times = network.manifest, time_dims(network.manifest)
    in_time = {t.shape[times[t.name]] for t in manifest.inputs if t.name in times}
    sizes = {n: steps if n in in_time else s for n, s in _free_sizes(network).items()}
    return _sized(manifest, rows, sizes)


def steps_of(network: Network, shapes: Shapes) -> int:
    """How many steps the calls of a rollout have together; 0 where time is not free."""
    times = time_dims(network.manifest)
    name = next((t.name for t in network.manifest.inputs if t.name in times), None)
    return sum(call[name][times[name]] for call in shapes[0]) if name else 0


def draw_all(network: Network, shapes: Shapes, seed: int) -> Iterator[Rollout]:
    """The rollouts of ``shapes``."""
    random = np.random.default_rng(seed)
    for rollout in shapes:
        yield [draw(network, call, random) for call in rollout]


def draw(
    network: Network, shapes: Mapping[str, tuple[int, ...]], random: np.random.Generator
) -> Feeds:
    """Numbers like the examples'."""
    return {
        tensor.name: numbers_like(
            network.examples[tensor.name], shapes[tensor.name], random
        ).astype(tensor.dtype)
        for tensor in network.manifest.inputs
    }


def cut_time(network: Network, feeds: Feeds, start: int, end: int) -> Feeds:
    """Steps ``start`` to ``end`` of every input that has time."""
    times = time_dims(network.manifest)
    return {
        name: np.take(x, range(start, end), times[name]) if name in times else x
        for name, x in feeds.items()
    }


def in_words(shapes: Shapes) -> str:
    """What is fed, for the report."""
    calls = shapes[0] if len(shapes[0]) > 1 else [rollout[0] for rollout in shapes[::_DRAWS]]
    carried = " with carried states" if len(shapes[0]) > 1 else ""
    first = next(iter(calls[0]))
    return f"{first} of {'; '.join(shape_text(call[first]) for call in calls)}{carried}"


def _free_sizes(network: Network) -> dict[str, int]:
    """Sizes that are free, beside the batch, as the examples have them."""
    return {
        size: network.examples[tensor.name].shape[dim]
        for tensor in network.manifest.inputs
        for dim, size in enumerate(tensor.shape)
        if isinstance(size, str) and dim > 0
    }


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
        oracle.run(draw(network, shapes, np.random.default_rng(0)))
    except Exception as error:  # whatever the network raises where a size does not fit it
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return ""
