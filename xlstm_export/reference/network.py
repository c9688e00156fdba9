"""A user's network in torch: as it is in float64, and with our operators in any precision."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.errors import BundleError, InputError, UnsupportedModelError
from xlstm_export.modules.call import (
    Signature,
    Whole,
    find_signature,
    named_inputs,
    named_results,
)
from xlstm_export.modules.cells import SLSTMCell
from xlstm_export.modules.describe import weights_sha256
from xlstm_export.modules.operators import Form, reference_form
from xlstm_export.modules.replace import replace_recurrences
from xlstm_export.modules.shapes import BATCH, symbols
from xlstm_export.modules.taps import OperatorTaps
from xlstm_export.reference.steps import CarriedSteps
from xlstm_export.runtime.session import Array


class NetworkOracle:
    """The network as it is, in float64, on the numbers that a bundle of ``dtype`` keeps.

    It knows no states: what it goes on from is every input so far, which it computes again. Of one
    that calls ``step`` the cells at ``stepped`` paths go on from what they handed out.
    """

    def __init__(self, module: Any, manifest: Manifest, stepped: Sequence[str] = ()) -> None:
        self._module = copy.deepcopy(module)
        self._steps = CarriedSteps(self._module, stepped) if stepped else None
        if manifest.dtype != "float32":
            self._module.to(getattr(torch, manifest.dtype))
        self._module.double().requires_grad_(False)
        self._outputs = [tensor.name for tensor in manifest.outputs]
        self._times = time_dims(manifest)
        self.name = f"{type(module).__qualname__} in PyTorch {torch.__version__}, float64"

    def run(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Outputs of the last steps, and the inputs so far. Raises what the network raises."""
        inputs = {name: torch.from_numpy(x) for name, x in feeds.items()}
        if self._steps is not None:
            return self._step(self._steps, inputs, states)
        steps = {d.shape[self._times[n]] for n, d in inputs.items() if n in self._times}
        if states is not None:
            before = {name: torch.from_numpy(x) for name, x in states.items()}
            inputs = {n: self._joined(n, before[n], x) for n, x in inputs.items()}
        with torch.no_grad():
            found = named_results(self._module(**_in_float64(inputs)), self._outputs)
        outputs = {name: self._last(name, y, steps).numpy() for name, y in found.items()}
        return outputs, {name: x.numpy() for name, x in inputs.items()}

    def _step(
        self, steps: CarriedSteps, inputs: Mapping[str, Tensor], states: Any
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Outputs of one step, and the states in upstream's own form."""
        after = steps.begin(states)
        with torch.no_grad():
            found = named_results(self._module(**_in_float64(inputs)), self._outputs, steps=True)
        return {name: y.numpy() for name, y in found.items()}, after

    def run_hooked(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What every module gives out in one call from the beginning, by path."""
        with hooked(self._module) as seen:
            self.run(feeds)
        return arrays(seen)

    def _joined(self, name: str, before: Tensor, x: Tensor) -> Tensor:
        return torch.cat([before, x], self._times[name]) if name in self._times else x

    def _last(self, name: str, y: Tensor, steps: set[int]) -> Tensor:
        if name not in self._times or len(steps) != 1:
            return y
        (count,) = steps
        dim = self._times[name]
        return y.narrow(dim, max(0, y.shape[dim] - count), min(count, y.shape[dim]))


class NetworkReference:
    """The network with our operators, in ``compute`` on the numbers that the bundle keeps."""

    def __init__(
        self, module: Any, signature: Signature, dtype: str, compute: str,
        form: Form = "recurrent",
    ) -> None:  # fmt: skip
        kind = getattr(torch, compute)
        replaced = replace_recurrences(module, getattr(torch, dtype))
        network = replaced.module.to(kind)
        self._whole = Whole(network, replaced.ledger, signature, kind)
        self._signature, self._form = signature, form
        self._state = torch.float64 if compute == "float64" else torch.float32
        self.name = f"torch reference, {form}, {compute}"

    def run(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """As ``Runner.run``."""
        names, sizes = self._signature.outputs, self._signature.sizes
        inputs = [torch.from_numpy(feeds[name]) for name in self._signature.inputs]
        rows = inputs[0].shape[0]
        past = [
            torch.zeros(rows, *size, dtype=self._state) if states is None
            else torch.from_numpy(states[key]).to(self._state)
            for key, size in sizes.items()
        ]  # fmt: skip
        with torch.no_grad(), reference_form(self._form):
            found = [x.numpy() for x in self._whole(*inputs, *past)]
        outputs = dict(zip(names, found, strict=False))
        return outputs, dict(zip(sizes, found[len(names) :], strict=True))

    def run_hooked(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What every module gives out in one call from the beginning, by path."""
        with hooked(self._whole.network) as seen:
            self.run(feeds)
        return arrays(seen)

    def run_tapped(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None,
        forced: Mapping[str, Array],
    ) -> tuple[dict[str, Array], dict[str, Array]]:  # fmt: skip
        """What goes into the operators and comes out, by the names of ``lowering.taps``, with the
        outputs, and the states after; bfloat16 numbers as float32.

        The network goes on with what is ``forced``.
        """
        taps = OperatorTaps(self._whole.network, forced)
        with taps.open():
            outputs, after = self.run(feeds, states)
        return arrays(taps.seen) | outputs, after


class Network:
    """A user's network beside the bundle made of it."""

    def __init__(self, module: Any, example_inputs: Any, manifest: Manifest) -> None:
        """Raises BundleError where the bundle has other ends, and what ``export_module`` does."""
        self.module, self.manifest = module, manifest
        self.given = examples = named_inputs(module, example_inputs)
        replaced = replace_recurrences(module)
        names = [tensor.name for tensor in manifest.outputs]
        try:
            found = find_signature(
                replaced.module, replaced.ledger, examples, names, bool(manifest.states)
            )
        except InputError as error:
            raise BundleError(f"the bundle has other outputs than the network: {error}") from error
        keys = [state.key for state in manifest.states]
        self.signature = Signature(
            found.inputs,
            found.outputs,
            {key: found.sizes[key] for key in keys if key in found.sizes},
            found.steps,
        )
        ends = [tensor.name for tensor in manifest.inputs]
        if ends != list(found.inputs) or list(self.signature.sizes) != keys:
            raise BundleError(
                "the bundle has other inputs or states than the network; give the network that it "
                "was made from"
            )
        self.examples = {name: x.numpy() for name, x in examples.items()}
        self.rounds = any(
            isinstance(cell, SLSTMCell) and cell.rounds for cell in replaced.module.modules()
        )
        """Whether it rounds to bfloat16 between its steps."""
        self.recurrences = replaced.recurrences
        """The classes that were recognised, by path."""
        self.parameters = sum(p.numel() for p in module.parameters())
        self.sha256 = weights_sha256(module)
        kind = type(module)
        self.source = f"{kind.__module__}.{kind.__qualname__}"

    def oracle(self) -> NetworkOracle:
        """The network itself in float64."""
        try:
            stepped = list(self.recurrences) if self.signature.steps else []
            return NetworkOracle(self.module, self.manifest, stepped)
        except Exception as error:  # whatever a network raises when it is copied or cast
            raise UnsupportedModelError(
                f"{self.source}: cannot be had in float64 ({error}), which validation needs"
            ) from error

    def reference(self, compute: str, form: Form = "recurrent") -> NetworkReference:
        """The network with our operators in ``compute``."""
        return NetworkReference(self.module, self.signature, self.manifest.dtype, compute, form)


def _in_float64(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: x.double() if x.is_floating_point() else x for n, x in inputs.items()}


@contextmanager
def hooked(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Note in the block what every module of ``network`` gives out, the first of several tensors,
    at its last call.
    """
    seen: dict[str, Tensor] = {}

    def note(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            del module, inputs
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(first, Tensor):
                seen[path] = first

        return hook

    handles = [m.register_forward_hook(note(path)) for path, m in network.named_modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def arrays(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """As numpy, which has no bfloat16 that torch knows: those as float32."""
    return {
        name: (x.float() if x.dtype == torch.bfloat16 else x).numpy() for name, x in tensors.items()
    }


def time_dims(manifest: Manifest) -> dict[str, int]:
    """The dimension of time of each input and output of a bundle with states; none without."""
    if not manifest.states:
        return {}
    return {
        tensor.name: dim
        for tensor in (*manifest.inputs, *manifest.outputs)
        for dim, size in enumerate(tensor.shape)
        if symbols(size) - {BATCH}
    }
