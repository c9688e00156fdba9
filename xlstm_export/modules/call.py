"""How a network is called: its inputs by name, its results by name, its states in between."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from xlstm_export.errors import InputError, UnsupportedModelError
from xlstm_export.modules.functions import recognised_functions
from xlstm_export.modules.ledger import Ledger

EXAMPLE_TYPES = (torch.float32, torch.float64, torch.float16, torch.int64, torch.int32)


def named_inputs(module: nn.Module, example_inputs: Any) -> dict[str, Tensor]:
    """``example_inputs`` by the names of ``module.forward``'s parameters.

    A tensor, a sequence of tensors, or tensors by name. Raises InputError.
    """
    signature = inspect.signature(module.forward)
    try:
        if isinstance(example_inputs, Mapping):
            bound = signature.bind(**example_inputs)
        elif isinstance(example_inputs, Tensor):
            bound = signature.bind(example_inputs)
        else:
            bound = signature.bind(*example_inputs)
    except TypeError as error:
        raise InputError(
            f"example_inputs do not fit {type(module).__name__}.forward{signature}: {error}"
        ) from error
    given: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise InputError(f"{name}: give every input a name of its own in forward")
        given |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    if not given:
        raise InputError("example_inputs: none are given")
    for name, value in given.items():
        _check(name, value)
    return given


def _check(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise InputError(
            f"{name}: is {type(value).__name__}, where a network's inputs are tensors; bind it in "
            "a module around the network"
        )
    if value.dtype not in EXAMPLE_TYPES or value.dim() == 0 or value.numel() == 0:
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in EXAMPLE_TYPES)
        raise InputError(
            f"{name}: {list(value.shape)} {value.dtype} is not possible; a tensor of 1 and more "
            f"dimensions, none of them 0, of {kinds}"
        )


def named_results(
    result: Any, names: Sequence[str] = (), *, steps: bool = False
) -> dict[str, Tensor]:
    """The tensors of what a network returned, by name.

    One is ``output``, several are ``output_0`` and on, those of a mapping keep its keys; ``names``
    replace them. ``steps``: collections in it are states of steps, which a bundle carries, and are
    left out. Raises UnsupportedModelError for other structures.
    """
    if steps:
        result = _without_states(result)
    if isinstance(result, Tensor):
        found = {"output": result}
    elif isinstance(result, Mapping):
        found = {str(key): value for key, value in result.items() if value is not None}
    elif isinstance(result, (tuple, list)):
        found = {f"output_{i}": x for i, x in enumerate(result) if x is not None}
    else:
        found = {"output": result}
    for name, value in found.items():
        if not isinstance(value, Tensor) or value.dim() == 0:
            raise UnsupportedModelError(
                f"{name}: the network returns {type(value).__name__}"
                f"{' of no dimension' if isinstance(value, Tensor) else ''}, where a bundle yields "
                "tensors with a batch; return those from a module around it"
            )
    if names and len(names) != len(found):
        raise InputError(f"output_names: {len(names)} names for {len(found)} outputs")
    return dict(zip(names or found, found.values(), strict=True))


def _without_states(result: Any) -> Any:
    def is_state(value: Any) -> bool:
        return isinstance(value, (Mapping, tuple, list))

    if isinstance(result, Mapping):
        return {key: value for key, value in result.items() if not is_state(value)}
    if isinstance(result, (tuple, list)):
        kept = [value for value in result if not is_state(value)]
        return kept[0] if len(kept) == 1 else kept
    return result


@dataclass(frozen=True)
class Signature:
    """Names of a network's inputs, outputs and states; ``sizes`` are a state's without rows.

    ``steps``: it calls its recurrences by ``step``, and a call of it is one step.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sizes: dict[str, tuple[int, ...]]
    steps: bool = False


class Whole(nn.Module):
    """The network as a function of tensors alone: inputs, then states, to outputs, then states.

    Numbers are float32 outside; inside ``dtype`` (None: as they come).
    """

    def __init__(
        self, network: nn.Module, ledger: Ledger, signature: Signature,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network, self.ledger = network, ledger
        self.signature, self.dtype = signature, dtype

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Outputs, and the states where ``signature`` has any."""
        names, keys = self.signature.inputs, tuple(self.signature.sizes)
        given = dict(zip((*names, *keys), tensors, strict=True))
        self.ledger.begin({key: given[key] for key in keys} if keys else None)
        inputs = {name: self._inner(given[name]) for name in names}
        result = call_network(self.network, self.ledger, inputs)
        outputs = named_results(result, self.signature.outputs, steps=self.signature.steps)
        present = [self.ledger.present[key] for key in keys]
        self.ledger.begin(None)
        return (*map(self._outer, outputs.values()), *present)

    def _inner(self, x: Tensor) -> Tensor:
        return x.to(self.dtype) if self.dtype is not None and x.is_floating_point() else x

    def _outer(self, x: Tensor) -> Tensor:
        is_low = x.is_floating_point() and x.dtype not in (torch.float32, torch.float64)
        return x.float() if is_low else x


def call_network(network: nn.Module, ledger: Ledger, inputs: Mapping[str, Tensor]) -> Any:
    """What ``network`` returns, its functions that are recognised computed by our operators."""
    with recognised_functions(network, ledger):
        return network(**inputs)


def find_signature(
    network: nn.Module, ledger: Ledger, inputs: Mapping[str, Tensor],
    output_names: Sequence[str] = (), states: bool = True,
) -> Signature:  # fmt: skip
    """What one call of ``network`` shows; ``states``: whether its states are to be carried.

    Raises UnsupportedModelError where it fails, InputError where two ends have one name.
    """
    try:
        with torch.no_grad():
            result = _probe(network, ledger, inputs)
    except UnsupportedModelError:
        raise
    except Exception as error:  # whatever a user's network raises
        raise UnsupportedModelError(
            f"{type(network).__name__}: fails on example_inputs ({type(error).__name__}: "
            f"{_first_line(error)})"
        ) from error
    sizes = {key: tuple(state.shape[1:]) for key, state in ledger.present.items()}
    steps = bool(ledger.stepped)
    if steps:
        _check_steps(ledger, states)
    ledger.begin(None)
    outputs = named_results(result, output_names, steps=steps and bool(sizes))
    if both := inputs.keys() & outputs.keys():
        raise InputError(
            f"output_names: {min(both)} is an input of the network as well; give its outputs other "
            "names by output_names"
        )
    return Signature(tuple(inputs), tuple(outputs), sizes, steps)


def _probe(network: nn.Module, ledger: Ledger, inputs: Mapping[str, Tensor]) -> Any:
    """One call. Raises UnsupportedModelError where it uses numbers that no operator gives out."""
    ledger.begin(None, probes=True)
    probed = call_network(network, ledger, inputs)
    if not ledger.probed:
        return probed
    path = min(ledger.probed)
    used = UnsupportedModelError(
        f"{path or 'the module'} (flashrnn): the network uses c, n or m of every step, which the "
        "operator does not give out; take y alone of the states over time, as states[0], and c, n "
        "and m after the last step, as flashrnn's second result"
    )
    ledger.begin(None)
    try:
        result = call_network(network, ledger, inputs)
    except Exception as error:  # the others are taken out of the states, which are not there
        raise used from error
    pairs = zip(pytree.tree_leaves(probed), pytree.tree_leaves(result), strict=False)
    if any(_is_reached(x, y) for x, y in pairs if isinstance(x, Tensor) and isinstance(y, Tensor)):
        raise used
    return result


def _is_reached(probed: Tensor, result: Tensor) -> bool:
    """Whether a NaN came through to ``probed``; among whole numbers it is another number."""
    if probed.is_floating_point():
        return bool(probed.isnan().any()) and not bool(result.isnan().any())
    return not torch.equal(probed, result)


def _check_steps(ledger: Ledger, states: bool) -> None:
    """Raise UnsupportedModelError where steps are more than one, or forgotten after the call."""
    path, count = ledger.calls.most_common(1)[0]
    if count > 1:
        raise UnsupportedModelError(
            f"{path or 'the module'}: runs {count} times in one call of a network that calls step, "
            "a Python loop over time; call forward once, with all steps (states=True carries its "
            "states), or let a call of the network be one step"
        )
    if ledger.present and not states:
        raise UnsupportedModelError(
            f"{min(ledger.stepped) or 'the module'}: its step begins at zero in every call, and "
            "the states after it are lost; give states=True, which carries them, or hand the "
            "states over as inputs of the network"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
