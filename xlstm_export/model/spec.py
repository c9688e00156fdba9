"""ModelSpec: the one description of a model between checkpoint and graph.

A model is a list of layers between named inputs and outputs. Sizes come from the checkpoint's
tensors; the tensors themselves are in ``Weights`` under ``{path}.{name}``, as the kinds of layer
say. Matrices keep PyTorch's [out, in] order, norm weights are plain (never stored as w - 1), and
gates are in their true slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from xlstm_export.bundle.manifest import IMAGES, ForecastInfo, TensorInfo
from xlstm_export.errors import CheckpointError
from xlstm_export.model.layer import Layer, WeightSpec, leaves
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.model.weights import Weights

Kind = TypeVar("Kind")

BATCH, SEQUENCE = "batch", "sequence"
"""Names of the dynamic dimensions."""

Recurrence = Literal["carried", "begun", "inner"]
"""Where the states of a model are: see ``ModelSpec.recurrence``."""


@dataclass(frozen=True)
class ModelSpec:
    """``layers`` run in order, from the first of ``inputs`` to the one of ``outputs``.

    ``recurrence``: the states are "carried", inputs and outputs of every call, the first being
    zero; or "begun": a call that begins takes none, and those that go on from its states are
    another graph, which yields ``continued_outputs``; or "inner": every call begins anew.
    ``forecast`` is of forecasters.
    """

    family: str
    inputs: tuple[TensorInfo, ...]
    layers: tuple[tuple[str, Layer], ...]
    outputs: tuple[TensorInfo, ...]
    recurrence: Recurrence = "carried"
    continued_outputs: tuple[TensorInfo, ...] = ()
    forecast: ForecastInfo | None = None

    def leaves(self) -> Iterator[tuple[str, Layer]]:
        """Every layer by path, composites taken apart."""
        for path, layer in self.layers:
            yield from leaves(path, layer)

    def layers_of(self, kind: type[Kind]) -> list[Kind]:
        """The layers of one kind, in order."""
        return [layer for _, layer in self.leaves() if isinstance(layer, kind)]

    def weights(self) -> dict[str, WeightSpec]:
        """Every weight that the model may have, by its full name."""
        return {
            f"{path}.{name}": weight
            for path, layer in self.leaves()
            for name, weight in layer.weights().items()
        }

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
