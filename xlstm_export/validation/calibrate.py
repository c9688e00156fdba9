"""What a user's own input says of few bits: by which scales, and which weights need more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from xlstm_export.bundle.low_bit import LowBit, Mixed
from xlstm_export.checkpoint.source import Checkpoint
from xlstm_export.errors import OptionError
from xlstm_export.lowering.lower import lower_model
from xlstm_export.lowering.options import LoweringOptions, in_words
from xlstm_export.lowering.write import data_size
from xlstm_export.model.mixture import Group, Levels, choices, least, raised, with_levels
from xlstm_export.progress import Progress
from xlstm_export.reference.squares import mean_squares
from xlstm_export.reference.threads import is_small, torch_threads
from xlstm_export.validation.given import real_rollouts
from xlstm_export.validation.inputs import Feeds, Rollout
from xlstm_export.validation.sensitivity import Probe, measure_groups, numbers_left, open_probe

_STEPS = 1024
"""Of a text, on which errors are measured: once for every product and way to keep it."""
_LEAST_STEPS = 64
"""Of each of many sequences."""


def calibrated(
    options: LoweringOptions, checkpoint: Checkpoint, folder: Path, progress: Progress | None
) -> LoweringOptions:
    """``options`` with what the file ``options.calibrate`` says: mean squares of inputs, and a
    mixture of bits where a bound is set. ``folder`` has the tokenizer.

    Raises InputError for a file that does not fit, OptionError for bounds that cannot be met.
    """
    assert options.calibrate is not None
    spec, weights, target = checkpoint.spec, checkpoint.weights, options.target_size
    if target is not None:
        _check_target(target, options, checkpoint)
    if progress is not None:
        progress("calibrating", 0, 0)
    rollouts = real_rollouts(options.calibrate, folder, spec)
    options = replace(options, importance=mean_squares(spec, weights, rollouts))
    if options.max_kl is None and target is None:
        return options
    probe = open_probe(spec, weights, _shortened(rollouts, checkpoint))
    if options.max_kl is not None and not probe.is_language:
        raise OptionError("max_kl", f"{spec.family} models yield no logits; give target_size")
    with torch_threads(1 if is_small(checkpoint.parameters) else None):
        groups = measure_groups(probe, weights, options.storage, progress)
        return replace(options, low_bit=_Mixture(options, checkpoint, probe, groups).chosen())


def _check_target(target: int, options: LoweringOptions, checkpoint: Checkpoint) -> None:
    """Raises OptionError for a size that no mixture fits into, or that needs none."""
    narrowest, widest = (_size(checkpoint, options, kept) for kept in (options.low_bit, None))
    if target < narrowest:
        raise OptionError(
            "target_size",
            f"{in_words(target)} is less than the {in_words(narrowest)} of all weights in the "
            "fewest bits; give more, a larger block_size, or int4",
        )
    if options.max_kl is None and target >= widest:
        raise OptionError(
            "target_size",
            f"{in_words(target)} holds all weights as they are, which take {in_words(widest)}; "
            "give less, or no weight_format",
        )


def _size(checkpoint: Checkpoint, options: LoweringOptions, low_bit: LowBit | None) -> int:
    """Bytes of the weights' file."""
    chosen = replace(options, low_bit=low_bit)
    return data_size(lower_model(checkpoint.spec, checkpoint.weights, chosen))


def _shortened(rollouts: Sequence[Rollout], checkpoint: Checkpoint) -> list[Rollout]:
    """Of sequences their first steps, as many of each; of other inputs all."""
    if not checkpoint.spec.has_sequence:
        return list(rollouts)
    name = checkpoint.spec.inputs[0].name
    sequences = sum(len(rollout[0][name]) for rollout in rollouts)
    most = max(_LEAST_STEPS, _STEPS // sequences)
    return [_first_steps(rollout, name, most) for rollout in rollouts]


def _first_steps(rollout: Rollout, name: str, left: int) -> Rollout:
    calls: list[Feeds] = []
    for feeds in rollout:
        if left > 0:
            calls.append({name: feeds[name][:, :left]})
        left -= feeds[name].shape[1]
    return calls


@dataclass(frozen=True)
class _Mixture:
    """Mixtures from all in the fewest bits to all wide, and what each costs and takes."""

    options: LoweringOptions
    checkpoint: Checkpoint
    probe: Probe
    groups: Sequence[Group]
    errors: dict[Levels, float] = field(default_factory=dict)

    def chosen(self) -> LowBit:
        """The one that meets what ``options`` ask for. Raises OptionError where none does."""
        way, target, most = raised(self.groups), self.options.target_size, self.options.max_kl
        fits = len(way) - 1
        if target is not None:
            fits = least(len(way), lambda i: self.size(way[i]) > target) - 1
        if most is None:
            return self.low_bit(way[fits], is_told=True)
        at = least(len(way), lambda i: self.error(way[i]) <= most)
        if at >= len(way) - 1:
            raise OptionError("max_kl", f"{most:g} leaves no weight in few bits; allow more")
        if at > fits:
            raise OptionError(
                "max_kl",
                f"{most:g} takes {in_words(self.size(way[at]))}; in {in_words(target or 0)} it is "
                f"{self.error(way[fits]):.1e}",
            )
        return self.low_bit(way[at], is_told=True)

    def low_bit(self, levels: Levels, *, is_told: bool = False) -> LowBit:
        """How the weights are stored at ``levels``, with the reasons where ``is_told``."""
        base = self.options.low_bit
        assert base is not None
        if not is_told:
            return with_levels(base, self.groups, levels)
        mixed = Mixed(
            "kl" if self.probe.is_language else "distance",
            self.error((0,) * len(levels)), self.error(levels), choices(self.groups, levels),
        )  # fmt: skip
        return replace(with_levels(base, self.groups, levels), mixed=mixed)

    def error(self, levels: Levels) -> float:
        """What the whole mixture costs, measured."""
        if levels not in self.errors:
            self.errors[levels] = self._measure(levels)
        return self.errors[levels]

    def _measure(self, levels: Levels) -> float:
        storage = replace(self.options.storage, low_bit=self.low_bit(levels))
        names = [name for group in self.groups for name in group.names]
        spec, weights = self.checkpoint.spec, self.checkpoint.weights
        return self.probe.error(numbers_left(spec, weights, names, storage))

    def size(self, levels: Levels) -> int:
        """Bytes of the weights' file."""
        return _size(self.checkpoint, self.options, self.low_bit(levels))
