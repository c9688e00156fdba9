"""ModelSpec: the one description of a model between checkpoint and graph.

A model is a list of layers between named inputs and outputs. Sizes come from the checkpoint's
tensors; the tensors themselves are in ``Weights`` under ``{path}.{name}``, as the kinds of layer
say. Matrices keep PyTorch's [out, in] order, norm weights are plain (never stored as w - 1), and
gates are in their true slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from xlstm_export.bundle.manifest import IMAGES, ForecastInfo, TensorInfo
from xlstm_export.errors import CheckpointError
from xlstm_export.model.layer import Layer, WeightSpec, leaves
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.model.weights import Weight, Weights

Kind = TypeVar("Kind")

BATCH, SEQUENCE = "batch", "sequence"
"""Names of the dynamic dimensions."""
HIDDEN_IN, HIDDEN_OUT = "hidden_in", "hidden_out"
"""What comes to a part of a model that is not its beginning, and what leaves one before its end."""

Recurrence = Literal["carried", "begun", "inner"]
"""Where the states of a model are: see ``ModelSpec.recurrence``."""


@dataclass(frozen=True)
class ModelSpec:
    """``layers`` run in order, from the first of ``inputs`` to the one of ``outputs``.

    ``recurrence``: the states are "carried", inputs and outputs of every call, the first being
    zero; or "begun": a call that begins takes none, and those that go on from its states are
    another graph, which yields ``continued_outputs``; or "inner": every call begins anew.
    ``forecast`` is of forecasters. Of a part of a model, ``states_before`` counts the layers with
    states that stand before it, and ``beside`` are weights of other parts that it uses.
    """

    family: str
    inputs: tuple[TensorInfo, ...]
    layers: tuple[tuple[str, Layer], ...]
    outputs: tuple[TensorInfo, ...]
    recurrence: Recurrence = "carried"
    continued_outputs: tuple[TensorInfo, ...] = ()
    forecast: ForecastInfo | None = None
    states_before: int = 0
    beside: tuple[tuple[str, WeightSpec], ...] = ()

    def part(self, start: int, stop: int) -> ModelSpec:
        """Layers ``start`` to ``stop`` of a model of sequences, as a model of their own.

        Vectors float32 [batch, sequence, D] go from part to part; a state keeps its name.
        """
        before = sum(bool(layer.states()) for _, layer in _leaves(self.layers[:start]))
        shape = (BATCH, SEQUENCE, self.width)
        own = self.layers[start:stop]
        tied = {layer.tied_to for _, layer in own if isinstance(layer, LogitHead)} - {""}
        tables = tied - {path for path, _ in own}
        return replace(
            self,
            layers=own,
            inputs=(TensorInfo(HIDDEN_IN, "float32", shape),) if start else self.inputs,
            outputs=(
                (TensorInfo(HIDDEN_OUT, "float32", shape),)
                if stop < len(self.layers)
                else self.outputs
            ),
            states_before=before,
            beside=tuple(
                (name, weight)
                for name, weight in self.weights().items()
                if name.rpartition(".")[0] in tables
            ),
        )

    @property
    def width(self) -> int:
        """D of a model of sequences: the size of the vectors that go from layer to layer."""
        embeddings = self.layers_of(TokenEmbedding)
        return embeddings[0].model_size if embeddings else int(self.inputs[0].shape[-1])

    def leaves(self) -> Iterator[tuple[str, Layer]]:
        """Every layer by path, composites taken apart."""
        return _leaves(self.layers)

    def layers_of(self, kind: type[Kind]) -> list[Kind]:
        """The layers of one kind, in order."""
        return [layer for _, layer in self.leaves() if isinstance(layer, kind)]

    def weights(self) -> dict[str, WeightSpec]:
        """Every weight that the model may have, by its full name."""
        return {
            f"{path}.{name}": weight
            for path, layer in self.leaves()
            for name, weight in layer.weights().items()
        } | dict(self.beside)

    @property
    def takes_input_as_is(self) -> bool:
        """Whether the first layer gets the input as it comes, not in the activations' type."""
        first = self.layers[0][1]
        return self.inputs[0].dtype != "float32" or getattr(first, "takes_float32", False)

    @property
    def has_sequence(self) -> bool:
        """Whether it takes sequences, of tokens or of their embeddings, of any length."""
        return SEQUENCE in self.inputs[0].shape

    @property
    def vocab_size(self) -> int | None:
        """Tokens the model knows; None where it takes no ids."""
        embeddings = self.layers_of(TokenEmbedding)
        return embeddings[0].vocab_size if embeddings else None


def _leaves(layers: tuple[tuple[str, Layer], ...]) -> Iterator[tuple[str, Layer]]:
    for path, layer in layers:
        yield from leaves(path, layer)


def token_ids() -> TensorInfo:
    """The input of a language model."""
    return TensorInfo("input_ids", "int64", (BATCH, SEQUENCE))


def embeddings(size: int) -> TensorInfo:
    """The input of a bare stack."""
    return TensorInfo("inputs_embeds", "float32", (BATCH, SEQUENCE, size))


def images(channels: int, resolution: tuple[int, int]) -> TensorInfo:
    """The input of a model of images, all of one ``resolution`` (height, width)."""
    return TensorInfo(IMAGES, "float32", (BATCH, channels, *resolution))


def logits(vocab_size: int) -> TensorInfo:
    """The output of a language model."""
    return TensorInfo("logits", "float32", (BATCH, SEQUENCE, vocab_size))


def hidden_states(size: int) -> TensorInfo:
    """The output of a model without a head."""
    return TensorInfo("last_hidden_state", "float32", (BATCH, SEQUENCE, size))


def own_weights(spec: ModelSpec, weights: Weights) -> dict[str, Weight]:
    """Those of a whole model's ``weights`` that ``spec``, a part of it, has."""
    return {name: weights[name] for name in spec.weights() if name in weights}


def check_weights(spec: ModelSpec, weights: Weights) -> None:
    """Raise CheckpointError unless ``weights`` are those ``spec`` asks for, of their shapes."""
    wanted: Mapping[str, WeightSpec] = spec.weights()
    missing = [n for n, w in wanted.items() if not w.optional and n not in weights]
    unknown = sorted(set(weights) - set(wanted))
    if missing or unknown:
        raise CheckpointError(f"{spec.family}: weights missing {missing}, unknown {unknown}")
    for name, weight in weights.items():
        if weight.shape != wanted[name].shape:
            raise CheckpointError(
                f"tensor {', '.join(weight.sources)}: shape {list(weight.shape)} for {name}, "
                f"expected {list(wanted[name].shape)}"
            )
