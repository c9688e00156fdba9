"""Where a layer stands while it is emitted: weights, states, other inputs, the rows' lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter, ir_type, scope_of
from xlstm_export.model.layer import Layer, file_at, result_name
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import StateNaming, StateSpec, state_specs
from xlstm_export.model.weights import Weights, below


@dataclass
class States:
    """Graph inputs of every state, and the values that the layers make of them.

    ``lengths`` is the operand every recurrent operator takes: an initialiser [-1], or the graph
    input ``sequence_lengths``. ``past`` is None where the call begins: every state is then zero.
    """

    lengths: ir.Value
    specs: tuple[StateSpec, ...]
    naming: StateNaming
    past: dict[tuple[str, str], ir.Value] | None
    present: dict[tuple[str, str], ir.Value] = field(default_factory=dict)

    def declare_outputs(self, g: Emitter) -> None:
        """Make every present value a graph output, in the order of ``specs``."""
        for s in self.specs:
            value = self.present[s.path, f"{s.kind}.{s.letter}"]
            g.output(value, s.names(self.naming)[1], s.dtype, s.shape)


def declare_states(
    g: Emitter, spec: ModelSpec, naming: StateNaming, lengths: ir.Value, begins: bool
) -> States:
    """Graph inputs for every state of ``spec``; none where ``begins``."""
    specs = state_specs(spec)
    if begins:
        return States(lengths, specs, naming, None)
    past = {
        (s.path, f"{s.kind}.{s.letter}"): g.input(s.names(naming)[0], s.dtype, s.shape)
        for s in specs
    }
    return States(lengths, specs, naming, past)


@dataclass(frozen=True)
class Place:
    """``path`` in a model with all its weights and states; these are None before the first layer
    that can carry one.

    ``begins``: the call takes no states. ``inputs`` are the graph's by name. ``tied`` are the paths
    of the tables that are a head's matrix as well. ``layer`` is what
    stands here, and ``x`` what came to it: a row of it has a row of each state.
    """

    path: str
    all_weights: Weights
    begins: bool
    inputs: Mapping[str, ir.Value]
    tied: frozenset[str] = frozenset()
    states: States | None = None
    layer: Layer | None = None
    x: ir.Value | None = None

    @property
    def weights(self) -> Weights:
        """The layer's own, by name."""
        return below(self.all_weights, self.path)

    @property
    def scope(self) -> str:
        """What the layer's nodes are named below."""
        return scope_of(self.path)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def outer_scope(self) -> str:
        """The scope of what the layer is a part of."""
        return scope_of(self.path.rpartition(".")[0])

    def at(self, path: str) -> Place:
        """Another place of the same model."""
        return replace(self, path=path)

    @property
    def lengths(self) -> ir.Value:
        """The operand ``lengths`` of a recurrent operator."""
        assert self.states is not None
        return self.states.lengths

    def input(self, name: str) -> ir.Value:
        """The graph input ``name``, of its own type."""
        return self.inputs[name]

    def take(self, g: Emitter, kind: str, letters: Sequence[str]) -> list[ir.Value]:
        """Past values of the layer, one per letter."""
        assert self.states is not None
        past = self.states.past
        if past is not None:
            return [past[self.path, f"{kind}.{letter}"] for letter in letters]
        assert self.layer is not None
        assert self.x is not None
        sizes = {(s.kind, s.letter): s.sizes for s in self.layer.states()}
        return [_zeros(g, self.x, sizes[kind, letter]) for letter in letters]

    def give(self, kind: str, letters: Sequence[str], values: Sequence[ir.Value]) -> None:
        """Present values of the layer, one per letter."""
        assert self.states is not None
        keys = [(self.path, f"{kind}.{letter}") for letter in letters]
        self.states.present.update(zip(keys, values, strict=True))

    def given(self, path: str, kind: str, letters: Sequence[str]) -> list[ir.Value]:
        """Present values of the layer at ``path``, which came before, one per letter."""
        assert self.states is not None
        return [self.states.present[path, f"{kind}.{letter}"] for letter in letters]


def emit_layer(g: Emitter, x: ir.Value, layer: Layer, place: Place) -> ir.Value:
    """The output of ``layer`` at ``place`` for x [B,T,...]."""
    here = replace(place, layer=layer, x=x)
    result: ir.Value = file_at("lowering", layer).emit(g, x, layer, here)
    g.results.setdefault(result_name(place.path, layer), []).append(result)
    return result


def _zeros(g: Emitter, x: ir.Value, sizes: Sequence[int]) -> ir.Value:
    """float32 zeros [rows of x, *sizes]; the sizes are written on the value."""
    rows = g.op("Shape", x, start=0, end=1, role="rows")
    zero = g.op("Expand", g.constant(0.0, "float32"), g.op("Concat", rows, g.ints(*sizes), axis=0))
    zero.type = ir.TensorType(ir_type("float32"))
    zero.shape = ir.Shape((None, *sizes))
    return zero
