"""The recurrent state of a model, and the only place where state names are composed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from xlstm_export.model.spec import ModelSpec, SLSTMMixer, UpProjectedMLSTMMixer

StateNaming = Literal["native", "genai", "edgellm"]


@dataclass(frozen=True)
class StateSpec:
    """One state tensor of one layer. ``shape`` starts with "batch"; the initial value is zero."""

    layer: int
    kind: Literal["mlstm", "slstm", "conv"]
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
    """Every state of ``spec``, in graph order."""
    return tuple(s for layer in range(len(spec.blocks)) for s in _layer_states(spec, layer))


def _layer_states(spec: ModelSpec, layer: int) -> Iterator[StateSpec]:
    mixer = spec.blocks[layer].mixer
    if isinstance(mixer, (UpProjectedMLSTMMixer, SLSTMMixer)) and mixer.conv_width > 0:
        channels = spec.model_size if isinstance(mixer, SLSTMMixer) else mixer.inner_size
        yield StateSpec(layer, "conv", "x", ("batch", mixer.conv_width - 1, channels))
    if isinstance(mixer, SLSTMMixer):
        for letter in "ycnm":
            yield StateSpec(layer, "slstm", letter, ("batch", mixer.heads, mixer.head_size))
        return
    cell = mixer.cell
    yield StateSpec(layer, "mlstm", "C", ("batch", cell.heads, cell.qk_size, cell.v_size))
    yield StateSpec(layer, "mlstm", "n", ("batch", cell.heads, cell.qk_size))
    yield StateSpec(layer, "mlstm", "m", ("batch", cell.heads))
