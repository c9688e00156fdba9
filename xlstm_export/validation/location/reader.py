"""A checkpoint that is read otherwise than upstream reads it: where that shows, and why it may.

Bundle and reference then agree with each other and differ from upstream, so no part of the graph
is wrong. What differs is seen in the states, layer by layer; common ways to misread are tried on
our model, and the one that makes it upstream's is the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import state_specs
from xlstm_export.model.weights import Weight, Weights
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.session import Array
from xlstm_export.validation.checks.rollout import relative_distance
from xlstm_export.validation.inputs import Feeds
from xlstm_export.validation.participants import Participants
from xlstm_export.validation.result import Location
from xlstm_export.validation.tolerance import errors, magnitude

SAME = 1e-9
"""Two float64 models that are one function are no farther apart, relative."""
_EXPLAINED = 1e-3
"""A misreading is the cause where undoing it leaves this part of the distance: undone on stored
numbers, it leaves their rounding.
"""


def locate_reader_fault(everyone: Participants, feeds: Feeds) -> Location | None:
    """Where our float64 model leaves upstream's; None where it does not, or there is none."""
    checkpoint, float64, oracle = everyone.checkpoint, everyone.float64, everyone.oracle
    if oracle is None:
        return None
    distance = relative_distance(float64, oracle, feeds)
    if distance <= SAME:
        return None
    (_, own), (_, upstream) = float64.run(feeds), oracle.run(feeds)
    differing = (
        state
        for state in state_specs(checkpoint.spec)
        if errors(own[state.key], upstream[state.key]).largest
        > SAME * (magnitude(upstream[state.key]) or 1.0)
    )
    first = next(differing, None)

    def is_upstreams(weights: Weights) -> bool:
        model = ReferenceModel(checkpoint.spec, weights, everyone.storage, "float64")
        return relative_distance(model, oracle, feeds) <= _EXPLAINED * distance

    tried = _misreadings(checkpoint.spec, checkpoint.weights)
    cause = next(
        (words for words, weights in tried if is_upstreams(weights)),
        "the checkpoint is read otherwise than upstream reads it",
    )
    where = "the end of the model" if first is None else first.path
    tensor = "the output" if first is None else f"state {first.key}"
    return Location(
        where, "the reader of the checkpoint", tensor, distance, SAME,
        f"{cause}; bundle and reference share it, upstream does not",
    )  # fmt: skip


def _misreadings(spec: ModelSpec, weights: Weights) -> Iterator[tuple[str, Weights]]:
    """What the reader may have missed, and the weights had it not."""
    norms = {f"{path}.weight" for path, layer in spec.leaves() if isinstance(layer, Norm)}
    inner = {name for name in weights if name.endswith("head_norm.weight")}
    yield "the norms are without their +1", _changed(weights, norms | inner, lambda w: w + 1)
    yield "the norms of the layers are without their +1", _changed(weights, norms, lambda w: w + 1)
    yield "the norms within layers are without their +1", _changed(weights, inner, lambda w: w + 1)
    yield "the norms have one too many", _changed(weights, norms | inner, lambda w: w - 1)
    yield "input and forget gate are swapped", _swapped(weights, "input_gate", "forget_gate")
    square = {n for n, w in weights.items() if len(w.shape) == 2 and w.shape[0] == w.shape[1]}
    yield "the square projections are transposed", _changed(weights, square, lambda w: w.T)


def _changed(
    weights: Weights, names: set[str], change: Callable[[Array], Array]
) -> Mapping[str, Weight]:
    return {
        name: weight.with_view(change) if name in names else weight
        for name, weight in weights.items()
    }


def _swapped(weights: Weights, first: str, second: str) -> Mapping[str, Weight]:
    def other(name: str) -> str:
        if first in name:
            return name.replace(first, second)
        return name.replace(second, first)

    return {name: weights.get(other(name), weight) for name, weight in weights.items()}
