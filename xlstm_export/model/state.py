"""The recurrent state of a model, and the only place where state names are composed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from xlstm_export.model.spec import BATCH, ModelSpec

StateNaming = Literal["native", "genai", "edgellm"]


@dataclass(frozen=True)
class StateSpec:
    """One state tensor. ``shape`` starts with "batch"; the initial value is zero.

    ``path`` is where its layer stands, ``layer`` the layer's number among those with states.
    """

    path: str
    layer: int
    kind: str
    letter: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    init: str = "zeros"

    @property
    def key(self) -> str:
        """``{layer}.{kind}.{letter}``, the name shared by input and output."""
        return f"{self.layer}.{self.kind}.{self.letter}"

    def names(self, naming: StateNaming = "native") -> tuple[str, str]:
        """Graph input and output names.

        ``genai`` and ``edgellm`` use the words of ONNX Runtime GenAI and TensorRT-Edge-LLM for
        the matrix memory and the convolution; the remaining tensors get names in their style.
        """
        if naming == "native":
            return f"past.{self.key}", f"present.{self.key}"
        word = {"C": "recurrent_state", "x": "conv_state"}.get(
            self.letter, f"{self.kind}_{self.letter}_state"
        )
        if naming == "genai":
            return f"past_key_values.{self.layer}.{word}", f"present.{self.layer}.{word}"
        return f"{word}_{self.layer}", f"present_{word}_{self.layer}"


def state_specs(spec: ModelSpec) -> tuple[StateSpec, ...]:
    """Every state that calls of ``spec`` pass on, in graph order."""
    return () if spec.recurrence == "inner" else tuple(_states(spec))


def _states(spec: ModelSpec) -> Iterator[StateSpec]:
    carrying = ((path, layer.states()) for path, layer in spec.leaves() if layer.states())
    for number, (path, states) in enumerate(carrying, spec.states_before):
        for s in states:
            yield StateSpec(path, number, s.kind, s.letter, (BATCH, *s.sizes))
