"""Whether a network can go on from its recurrences' states alone: tried, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from xlstm_export.errors import UnsupportedModelError
from xlstm_export.modules.call import Signature, Whole
from xlstm_export.modules.replace import Replaced

_CLOSE = 1e-9
"""Of the largest value, in float64: one call and its parts differ by rounding alone."""
Times = Mapping[str, int]
"""The dimension of time, by input or output; what has none is left out."""


def check_streaming(
    replaced: Replaced, signature: Signature, inputs: Mapping[str, Tensor], times: Times
) -> None:
    """Raise UnsupportedModelError, with the reason, unless parts with carried states are the whole.

    ``replaced`` is in float64; ``inputs`` have two steps and more.
    """
    runner = _Runner(replaced, signature, times)
    steps = next(inputs[name].shape[times[name]] for name in inputs if name in times)
    together, _ = runner.run(inputs, None)
    for cuts in ((0, steps // 2, steps), (0, 1, steps), (0, steps - 1, steps)):
        parts, states = [], None
        for start, end in itertools.pairwise(cuts):
            if end > start:
                found, states = runner.run(runner.cut(inputs, start, end), states)
                parts.append(found)
        wrong = [name for name in together if not _agrees(name, together, parts, times)]
        if wrong:
            raise UnsupportedModelError(_reason(wrong[0], runner, inputs, steps))


def check_on_others(
    replaced: Replaced, signature: Signature, inputs: Mapping[str, Tensor], times: Times
) -> None:
    """``check_streaming`` on numbers that were drawn, where the network computes on them."""
    try:
        outputs, _ = _Runner(replaced, signature, times).run(inputs, None)
    except Exception:  # whatever it raises on numbers that are none of its kind
        return
    if all(bool(y.isfinite().all()) for y in outputs.values()):
        check_streaming(replaced, signature, inputs, times)


def _agrees(
    name: str, together: Mapping[str, Tensor], parts: Sequence[Mapping[str, Tensor]], times: Times
) -> bool:
    pieces = [part[name] for part in parts]
    joined = torch.cat(pieces, times[name]) if name in times else pieces[-1]
    whole = together[name]
    if joined.shape != whole.shape:
        return False
    error = (joined - whole).abs().max()
    return bool(error <= _CLOSE * max(1.0, float(whole.abs().max())))


def _reason(name: str, runner: _Runner, inputs: Mapping[str, Tensor], steps: int) -> str:
    """Why ``name`` differs: it looks ahead, or something besides the recurrences looks back."""
    start = f"states=True: {name} of two calls with carried states is not that of one call: "
    cure = "; export it without states, or states=True for a causal part of it"
    if name in runner.times:
        shorter, _ = runner.run(runner.cut(inputs, 0, steps - 1), None)
        before, _ = runner.run(inputs, None)
        dim = runner.times[name]
        kept = shorter[name].shape[dim]
        same = before[name].narrow(dim, 0, min(kept, before[name].shape[dim]))
        if same.shape != shorter[name].shape or not torch.allclose(same, shorter[name], atol=1e-9):
            return (
                f"{start}a step sees later ones (a flip of time, a centred convolution, attention "
                f"or a norm over time){cure}"
            )
    return (
        f"{start}earlier steps reach it by another way than the recognised recurrences (pooling "
        f"over time, a convolution, positions counted from the start){cure}"
    )


class _Runner:
    """Calls of the network in float64, from states and to states."""

    def __init__(self, replaced: Replaced, signature: Signature, times: Times) -> None:
        self.signature, self.times = signature, times
        self._whole = Whole(replaced.module, replaced.ledger, signature)
        self._double = torch.float64

    def run(
        self, inputs: Mapping[str, Tensor], states: Sequence[Tensor] | None
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Outputs by name, and states in the order of the signature."""
        given = [x.to(self._double) if x.is_floating_point() else x for x in inputs.values()]
        rows = given[0].shape[0]
        if states is None:
            shapes = self.signature.sizes.values()
            states = [torch.zeros(rows, *size, dtype=self._double) for size in shapes]
        with torch.no_grad():
            found = self._whole(*given, *states)
        count = len(self.signature.outputs)
        return dict(zip(self.signature.outputs, found, strict=False)), list(found[count:])

    def cut(self, inputs: Mapping[str, Tensor], start: int, end: int) -> dict[str, Tensor]:
        """Steps ``start`` to ``end`` of every input that has time."""
        return {
            name: x.narrow(self.times[name], start, end - start) if name in self.times else x
            for name, x in inputs.items()
        }


def without_states(signature: Signature) -> Signature:
    """The same network, every call from zero states."""
    return replace(signature, sizes={})
