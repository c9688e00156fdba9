"""What each product costs in few bits: the model's error on real input with that one quantised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xlstm_export.bundle.low_bit import LowBit
from xlstm_export.model.low_bit import candidates, stored_bytes
from xlstm_export.model.mixture import Group, Level, by_source
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.storage import Storage, left_of
from xlstm_export.model.weights import Weights
from xlstm_export.progress import Progress
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.session import Array
from xlstm_export.validation.inputs import Rollout
from xlstm_export.validation.measures.language import kl_divergence


@dataclass(frozen=True)
class Probe:
    """A model in float32 on the checkpoint's own numbers, and its outputs on ``rollouts``."""

    model: ReferenceModel
    rollouts: Sequence[Rollout]
    exact: Sequence[Array]

    @property
    def is_language(self) -> bool:
        """Whether errors are KL divergences, not squared distances."""
        return self.model.spec.outputs[0].name == "logits" and self.model.spec.has_sequence

    def error(self, numbers: Mapping[str, Array]) -> float:
        """What the model errs with other ``numbers`` for some of its weights."""
        found = _outputs(self.model.with_numbers(numbers), self.rollouts)
        pairs = list(zip(found, self.exact, strict=True))
        if self.is_language:
            return float(np.concatenate([kl_divergence(*pair).ravel() for pair in pairs]).mean())
        apart = sum(float(np.nansum(np.square(got - exact))) for got, exact in pairs)
        return apart / sum(float(np.nansum(np.square(exact))) for _, exact in pairs)


def open_probe(spec: ModelSpec, weights: Weights, rollouts: Sequence[Rollout]) -> Probe:
    """The model of ``weights``, having run ``rollouts``; states are carried in each."""
    model = ReferenceModel(spec, weights, "float32", "float32", "chunkwise")
    return Probe(model, rollouts, _outputs(model, rollouts))


def _outputs(model: ReferenceModel, rollouts: Sequence[Rollout]) -> list[Array]:
    outputs = []
    for rollout in rollouts:
        states: Mapping[str, Array] | None = None
        for feeds in rollout:
            got, after = model.run(feeds, states)
            states = after if model.spec.recurrence != "inner" else None
            outputs.append(next(iter(got.values())))
    return outputs


def numbers_left(
    spec: ModelSpec, weights: Weights, names: Sequence[str], storage: Storage
) -> dict[str, Array]:
    """What ``storage`` leaves of the weights ``names``, in float32."""
    specs = spec.weights()
    return {
        name: left_of(storage.kept(name, specs[name], weights[name])).astype(np.float32)
        for name in names
    }


def measure_groups(
    probe: Probe, weights: Weights, storage: Storage, progress: Progress | None
) -> list[Group]:
    """Every product that ``storage`` has in few bits, with what each way to keep it costs."""
    spec, low_bit = probe.model.spec, storage.low_bit
    assert low_bit is not None
    specs = spec.weights()
    names = [name for name in candidates(spec, weights) if name not in low_bit.wide]
    groups = by_source(names, {name: weights[name].sources for name in names})
    found = []
    for number, members in enumerate(groups):
        if progress is not None:
            progress("measuring what few bits cost", number, len(groups), "products")
        levels: list[Level] = []
        for way in _ways(low_bit, members):
            kept = replace(storage, low_bit=way)
            numbers = numbers_left(spec, weights, members, kept)
            held = [kept.kept(name, specs[name], weights[name]) for name in members]
            blocks = {weight.blocks for weight in held}
            # tables take 8 bits where others take 4: the two ways are one
            called = "/".join(sorted({f"int{b.bits}" if b else held[0].kept for b in blocks}))
            if not levels or levels[-1].kept != called:
                error = 0.0 if blocks == {None} else probe.error(numbers)
                levels.append(Level(called, sum(map(stored_bytes, held)), error))
        found.append(Group(members, tuple(levels)))
    return found


def _ways(low_bit: LowBit, names: tuple[str, ...]) -> list[LowBit]:
    """As it is, in 8 bits where it has 4, and wide."""
    ways = [low_bit, replace(low_bit, wide=(*low_bit.wide, *names))]
    return ways if low_bit.bits == 8 else [ways[0], replace(low_bit, eight=names), ways[1]]
