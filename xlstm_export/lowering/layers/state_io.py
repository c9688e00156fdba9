"""Past and present of one layer, handed to its emitter."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import StateNaming, StateSpec, state_specs


@dataclass
class StateIO:
    """Graph inputs ``past`` by state key, and ``present`` filled in by the layers.

    ``lengths`` is the operand every recurrent operator takes: an initialiser [-1], or the graph
    input ``sequence_lengths``.
    """

    specs: tuple[StateSpec, ...]
    naming: StateNaming
    past: dict[str, ir.Value]
    lengths: ir.Value
    present: dict[str, ir.Value] = field(default_factory=dict)

    def take(self, layer: int, kind: str, letters: str) -> list[ir.Value]:
        """Past values of ``layer``, one per letter."""
        return [self.past[f"{layer}.{kind}.{letter}"] for letter in letters]

    def give(self, layer: int, kind: str, letters: str, values: list[ir.Value]) -> None:
        """Present values of ``layer``, one per letter."""
        keys = [f"{layer}.{kind}.{letter}" for letter in letters]
        self.present.update(zip(keys, values, strict=True))

    def declare_outputs(self, g: Emitter) -> None:
        """Make every present value a graph output, in the order of ``specs``."""
        for spec in self.specs:
            g.output(self.present[spec.key], spec.names(self.naming)[1], spec.dtype, spec.shape)


def declare_states(g: Emitter, model: ModelSpec, naming: StateNaming, lengths: ir.Value) -> StateIO:
    """Graph inputs for every state of ``model``."""
    specs = state_specs(model)
    past = {s.key: g.input(s.names(naming)[0], s.dtype, s.shape) for s in specs}
    return StateIO(specs, naming, past, lengths)
