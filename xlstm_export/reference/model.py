"""The readable model: a ModelSpec evaluated in torch, in any precision and either mLSTM form.

In float64 it is the standard every other session is held to; in float32, float16 or bfloat16 its
errors are what ``validation.tolerance`` allows others. The arithmetic types follow the exported
graph: norms, gates and states in float32 (float64 in float64), the rest in the model's dtype.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import state_specs
from xlstm_export.model.storage import Storage, left_of
from xlstm_export.model.weights import Weights
from xlstm_export.ops.reference import mlstm_chunkwise, mlstm_recurrent
from xlstm_export.ops.schema import state_dtype
from xlstm_export.reference.place import Place, StateKey, Taps, Watch, evaluate_layer
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.states import States

Form = Literal["recurrent", "chunkwise"]


class ReferenceModel:
    """Evaluates ``spec`` with ``weights`` as ``storage`` (or one of that dtype) leaves them.

    ``compute`` is the arithmetic type: that of ``storage``, or "float64" for the exact result on
    the rounded weights.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        storage: Storage | str = "float32",
        compute: str = "float64",
        form: Form = "recurrent",
        watch: Watch | None = None,
    ) -> None:
        self.spec = spec
        self._watch = watch
        self._compute = compute
        self._use_form(form)
        self.states = state_specs(spec)
        self._x_type: torch.dtype = getattr(torch, compute)
        self._s_type: torch.dtype = getattr(torch, state_dtype(compute))
        self._parameters: dict[str, Tensor] = {}
        storage = Storage(storage) if isinstance(storage, str) else storage
        self._specs = spec.weights()
        for name, weight in weights.items():
            numbers = left_of(storage.kept(name, self._specs[name], weight))
            self._parameters[name] = self._working(name, numbers)

    def _working(self, name: str, numbers: Array) -> Tensor:
        """``numbers`` of the weight ``name`` in the type in which it takes part."""
        stays = self._specs[name].stays_float32
        return torch.from_numpy(numbers).to(self._s_type if stays else self._x_type)

    def _use_form(self, form: Form) -> None:
        self.name = f"xlstm-export torch reference, {form}, {self._compute}"
        self._mlstm = mlstm_recurrent if form == "recurrent" else mlstm_chunkwise

    def in_form(self, form: Form) -> ReferenceModel:
        """The same model, on the same weights, with the mLSTM computed in ``form``."""
        other = copy.copy(self)
        other._use_form(form)
        return other

    def with_numbers(self, numbers: Mapping[str, Array]) -> ReferenceModel:
        """The same model with other ``numbers`` for the weights of those names."""
        other = copy.copy(self)
        other._parameters = self._parameters | {
            name: self._working(name, array) for name, array in numbers.items()
        }
        return other

    def run(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None
    ) -> tuple[dict[str, Array], States]:
        """As ``Session.run``; outputs and states in the state type."""
        with torch.inference_mode():
            return self._run(feeds, states, None)

    def run_tapped(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None,
        forced: Mapping[str, Array],
    ) -> tuple[dict[str, Array], States]:  # fmt: skip
        """What passes between the parts of the model, by the names of ``reference.place.Taps``,
        and the states after the call; bfloat16 numbers as float32.

        Parts go on with what is ``forced``; what several runs of one layer make is left out.
        """
        taps = Taps(forced)
        with torch.inference_mode():
            _, states = self._run(feeds, states, taps)
        return {n: _array(seen[0]) for n, seen in taps.seen.items() if len(seen) == 1}, states

    def _run(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None, taps: Taps | None
    ) -> tuple[dict[str, Array], States]:
        inputs = {tensor.name: self._input(feeds[tensor.name]) for tensor in self.spec.inputs}
        new: dict[StateKey, Tensor] = {}
        place = Place(
            "", self._parameters, self._old(states), new, self._x_type, self._s_type, self._mlstm,
            inputs, taps=taps, watch=self._watch,
        )  # fmt: skip
        x = inputs[self.spec.inputs[0].name]
        x = x if self.spec.takes_input_as_is else x.to(self._x_type)
        for path, layer in self.spec.layers:
            x = evaluate_layer(x, layer, place.at(path))
        after = {s.key: new[s.path, f"{s.kind}.{s.letter}"].numpy() for s in self.states}
        return {self.spec.outputs[0].name: x.to(self._s_type).numpy()}, States(after)

    def _input(self, given: Array) -> Tensor:
        x = torch.tensor(given)
        return x.to(self._s_type) if x.is_floating_point() else x

    def _old(self, states: Mapping[str, Array] | None) -> dict[StateKey, Tensor] | None:
        if states is None or self.spec.recurrence == "inner":
            return None
        return {
            (s.path, f"{s.kind}.{s.letter}"): torch.tensor(states[s.key]).to(self._s_type)
            for s in self.states
        }


def _array(tensor: Tensor) -> Array:
    """As numpy, which has no bfloat16 that torch knows."""
    result: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return result
